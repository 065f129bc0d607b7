"""Scenes whose depth, normals and colours are known in closed form. Meshes are compared with them."""

from dataclasses import dataclass

import torch

from diffusion3d.rendering.render import Render


class Analytic:
    """Opaque; seen by one ray per pixel. Colours are a smooth function of the place."""

    normals = True

    def hit(self, rays_o, rays_d):
        """The ray parameter at the first surface (inf: none) and the outward unit normal there, [..., 1] and [..., 3]."""
        raise NotImplementedError

    @staticmethod
    def color(points):
        return 0.5 + 0.4 * torch.sin(4 * points)

    def render(self, cameras, pixels=None, sources=None, shading=None):
        rays_o, rays_d = cameras.rays()
        depth, normals = self.hit(rays_o, rays_d)
        alpha = depth.isfinite().float()
        depth = torch.where(alpha > 0, depth, 0.0)
        rgb, normals = alpha * self.color(rays_o + depth * rays_d), alpha * normals
        rgb, alpha, depth, normals = (value.movedim(-1, 2) for value in (rgb, alpha, depth, normals))
        return Render(rgb, alpha, depth, normals if self.normals else None)


@dataclass
class Sphere(Analytic):
    center: tuple = (0.1, -0.2, 0.05)
    radius: float = 0.6
    normals: bool = True

    def distance(self, points):
        return (points - torch.tensor(self.center, dtype=points.dtype)).norm(dim=-1) - self.radius

    def hit(self, rays_o, rays_d):
        center = torch.tensor(self.center)
        a = rays_d.square().sum(-1, keepdim=True)
        b = (rays_d * (rays_o - center)).sum(-1, keepdim=True)
        c = (rays_o - center).square().sum(-1, keepdim=True) - self.radius**2
        root = b * b - a * c
        depth = torch.where(root > 0, (-b - root.clamp(min=0).sqrt()) / a, torch.inf)
        return depth, (rays_o + torch.where(root > 0, depth, 0.0) * rays_d - center) / self.radius


@dataclass
class Box(Analytic):
    center: tuple = (-0.1, 0.1, 0.0)
    half: tuple = (0.7, 0.35, 0.5)
    normals: bool = True

    def distance(self, points):
        q = (points - torch.tensor(self.center, dtype=points.dtype)).abs() - torch.tensor(self.half, dtype=points.dtype)
        return q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0)

    def hit(self, rays_o, rays_d):
        origin, half = rays_o - torch.tensor(self.center), torch.tensor(self.half)
        first = (-half * rays_d.sign() - origin) / rays_d
        last = (half * rays_d.sign() - origin) / rays_d
        depth, axis = first.max(-1, keepdim=True)
        depth = torch.where((depth < last.amin(-1, keepdim=True)) & (depth > 0), depth, torch.inf)
        return depth, torch.zeros_like(rays_d).scatter(-1, axis, -rays_d.sign().gather(-1, axis))


@dataclass
class Several(Analytic):
    """The union of scenes;"""

    parts: tuple
    normals: bool = True

    def distance(self, points):
        return torch.stack([part.distance(points) for part in self.parts]).amin(0)

    def hit(self, rays_o, rays_d):
        hits = [part.hit(rays_o, rays_d) for part in self.parts]
        depth, which = torch.stack([depth for depth, _ in hits]).min(0)
        normals = torch.stack([normal for _, normal in hits])
        return depth, normals.gather(0, which[None].expand(1, *normals.shape[1:]))[0]
