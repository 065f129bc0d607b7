import pytest
from omegaconf import OmegaConf

from diffusion3d.camera_sampling import Orbit
from diffusion3d.errors import UserError, user_error
from diffusion3d.tasks.build import build

NODE = {"_target_": "diffusion3d.camera_sampling.Orbit", "provides": ["camera"], "needs": [], "size": "${side}"}


def node(**values):
    return OmegaConf.create({"side": 24, "node": {**NODE, **values}}).node


def test_capabilities_are_no_arguments_and_interpolations_are_resolved():
    camera = build(node(views=3))
    assert isinstance(camera, Orbit)
    assert (camera.size, camera.views) == (24, 3)


def test_arguments_add_to_the_nodes_own():
    assert build(node(), views=7).views == 7


def test_nodes_inside_are_built_too():
    inner = {"_target_": "builtins.dict", "a": {"_target_": "builtins.list"}}
    assert build(OmegaConf.create(inner)) == {"a": []}


def test_what_a_constructor_refuses_is_found_inside_hydras_error():
    with pytest.raises(Exception, match="Orbit") as caught:
        build(node(fov=200.0))
    error = user_error(caught.value)
    assert isinstance(error, UserError) and "fov=200.0" in str(error)


@pytest.mark.parametrize(
    ("values", "key"), [({"size": [1]}, "node"), ({"inner": {"_target_": "os.stat"}}, "node.inner")]
)
def test_what_a_constructor_did_not_foresee_is_one_line_that_names_the_key(values, key):
    with pytest.raises(UserError, match=f"^{key} cannot be made with its settings, .*Error") as caught:
        build(node(**values))
    assert "\n" not in str(caught.value)
