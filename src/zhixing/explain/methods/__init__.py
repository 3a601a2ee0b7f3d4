"""The methods of attribution, one a file; a literal table of their names."""

from __future__ import annotations

from .gradcam import grad_cam
from .gradients import gradient_x_input
from .integrated import integrated_gradients
from .maps import Maps, Method
from .occlusion import occlusion
from .rollout import attention_rollout
from .shapley import shapley

__all__ = ["METHODS", "Maps", "Method"]

METHODS: dict[str, Method] = {
    "integrated_gradients": integrated_gradients,
    "gradient_x_input": gradient_x_input,
    "grad_cam": grad_cam,
    "occlusion": occlusion,
    "attention_rollout": attention_rollout,
    "shapley": shapley,
}
