"""Objects: deterministic, disjoint splits, held-out colours, sound meshes."""

import colorsys

import numpy as np
import pytest
import trimesh

from diffusion3d.data.toybox import heldout
from diffusion3d.data.toybox.generate import RADIUS, SPLITS, draw, shade
from diffusion3d.data.toybox.parts import COLOURS, Builder
from diffusion3d.data.toybox.subjects import ASYMMETRIC, SUBJECTS, subject_named

NAMES = [subject.name for subject in SUBJECTS]


def shown(obj):
    return {(obj.subject, part, colour) for part, colour in obj.colours.items()}


def test_there_are_32_subjects_with_names_of_their_own():
    assert len(SUBJECTS) == 32
    words = [word.lower() for s in SUBJECTS for word in (s.name, *s.words, *s.evaluation)]
    assert len(words) == len(set(words))
    assert len(ASYMMETRIC) >= 15
    for subject in SUBJECTS:
        assert subject.words and subject.evaluation
        assert all(colour in COLOURS for colours in subject.parts.values() for colour in colours)
        for part, colours in subject.parts.items():
            assert len(set(colours)) == 1 or f"{{{part}}}" in subject.full
    assert sum(len(s.evaluation) for s in SUBJECTS) >= 30


def test_draws_are_deterministic_and_depend_on_every_argument():
    first, again = draw(3, 5), draw(3, 5)
    assert first.colours == again.colours and first.subject == again.subject
    for name in ("vertices", "faces", "colours", "labels", "normals"):
        np.testing.assert_array_equal(getattr(first.mesh, name), getattr(again.mesh, name))
    others = [draw(4, 5), draw(3, 6), draw(5, 3), draw(3, 5, "validation"), draw(3, 5, "test"), draw(3, 5, "heldout")]
    entropies = {first.entropy} | {other.entropy for other in others}
    assert len(entropies) == 7
    house = draw(3, 5, subject="house"), draw(3, 6, subject="house"), draw(3, 5, "test", subject="house")
    assert len({obj.mesh.vertices.tobytes() for obj in house}) == 3


def test_splits_draw_different_objects():
    found = [{draw(0, i, split, subject="castle").mesh.vertices.tobytes() for i in range(8)} for split in SPLITS]
    assert len(set.union(*found)) == 8 * len(SPLITS)


def test_every_subject_occurs_by_its_weight():
    counts = dict.fromkeys(NAMES, 0)
    for i in range(8000):
        counts[draw(1, i).subject] += 1
    total = sum(s.weight for s in SUBJECTS)
    for subject in SUBJECTS:
        assert counts[subject.name] == pytest.approx(8000 * subject.weight / total, rel=0.3)


def test_committed_heldout_list_is_the_chosen_one_and_covers_enough():
    assert [tuple(t) for t in heldout.choose(SUBJECTS)] == sorted(
        heldout.triples(), key=lambda t: (NAMES.index(t[0]), list(SUBJECTS[NAMES.index(t[0])].parts).index(t[1]), t[2])
    )
    assert heldout.share(SUBJECTS) >= 0.10
    assert len(heldout.subjects()) >= 20
    for subject in SUBJECTS:
        for part, colours in subject.parts.items():
            held = {c for s, p, c in heldout.triples() if (s, p) == (subject.name, part)}
            assert held <= set(colours)
            assert len(held) <= 0.4 * len(set(colours))
    for triple in heldout.KEPT:
        assert triple not in heldout.triples()


def test_training_and_validation_never_show_heldout_combinations():
    held = heldout.triples()
    seen = set().union(*(shown(draw(0, i)) for i in range(20000)))
    seen |= set().union(*(shown(draw(0, i, "validation")) for i in range(3000)))
    assert not seen & held
    choices = {(s.name, part, c) for s in SUBJECTS for part, colours in s.parts.items() for c in colours}
    assert seen == choices - held


def test_heldout_draws_show_heldout_combinations_and_test_draws_everything():
    held = heldout.triples()
    assert all(shown(draw(0, i, "heldout")) & held for i in range(500))
    assert set().union(*(shown(draw(0, i, "test")) for i in range(6000))) >= held


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="split"):
        draw(0, 0, "trian")
    with pytest.raises(ValueError, match="castel"):
        draw(0, 0, subject="castel")
    with pytest.raises(ValueError, match="walls=mauve"):
        draw(0, 0, subject="castle", colours={"walls": "mauve"})
    assert draw(0, 0, subject="castle", colours={"walls": "tan"}).colours["walls"] == "tan"


def test_shades_stay_nearest_to_their_own_name():
    names, table = list(COLOURS), np.array(list(COLOURS.values()))
    rng = np.random.default_rng(0)
    for name in names:
        for _ in range(200):
            colour = shade(name, rng)
            assert names[int(np.abs(table - colour).sum(1).argmin())] == name
            assert np.abs(np.subtract(colorsys.rgb_to_hsv(*colour)[2], max(COLOURS[name]))) < 0.08


@pytest.mark.parametrize("name", NAMES)
def test_subject_is_sound(name):
    sizes = []
    for i in range(20):
        mesh = draw(9, i, subject=name).mesh
        reach = np.linalg.norm(mesh.vertices, axis=1)
        assert reach.max() == pytest.approx(RADIUS, abs=1e-4)
        np.testing.assert_allclose(mesh.vertices.min(0), -mesh.vertices.max(0), atol=1e-4)
        size = np.ptp(mesh.vertices, axis=0)
        assert size.min() > 0.3
        sizes.append(size)
        assert np.isfinite(mesh.normals).all() and mesh.labels.min() == 1 and mesh.labels.max() == len(mesh.names)
        assert mesh.colours.min() >= 0 and mesh.colours.max() <= 1
        a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
        outward = np.cross(b - a, c - a)
        assert ((outward[:, None] * mesh.normals).sum(-1) > -1e-6).mean() > 0.999
    assert np.ptp(sizes, axis=0).max() > 1e-3
    builder = Builder()
    subject = subject_named(name)
    colour = {part: np.array(COLOURS[names[0]]) for part, names in subject.parts.items()}
    subject.build(builder, colour, np.random.default_rng(0))
    first = 0
    for vertices, faces in zip(builder.vertices, builder.faces, strict=True):
        solid = trimesh.Trimesh(vertices, faces - first, process=False)
        solid.merge_vertices()
        assert solid.is_watertight and solid.volume > 0
        first += len(vertices)
