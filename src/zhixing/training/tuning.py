"""Fine-tuning: which parameters of a base learn, when, and at which rate.

A base is a part of the model that starts from published weights, or is a module that was passed in. All else (the
fusion, the heads, other encoders) is new and learns as ever. A base has layers, in the order in which its modules were
registered: what comes before the first member of a list of modules is the lowest, each member of such a list begins
the next.

What does not learn works as in use: nothing is dropped in it, and statistics of batch norms stay as they are. With
LoRA, dropout is at work as in all training, and statistics stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from ..errors import UsageError, did_you_mean
from ..layers.lora import LoRALinear, adapt
from ..randomness import fold

__all__ = ["TUNINGS", "Layer", "Method", "Tuned", "layers_of"]

Decay = Annotated[
    float,
    Field(gt=0, le=1, description="rate of each layer over that of the layer above, of the top one over a head's"),
]


@dataclass
class Layer:
    """Modules and parameters that learn from the same step on and at the same rate."""

    modules: list[nn.Module] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)


def layers_of(base: nn.Module) -> list[Layer]:
    """The layers of a base, the lowest first; each parameter is in one, the lowest that uses it.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.Linear(3, 1))
    >>> [sum(p.numel() for p in layer.parameters) for layer in layers_of(net)]
    [9, 12, 4]
    """
    layers, seen = [Layer()], set[int]()

    def take(parameters: Iterable[nn.Parameter]) -> None:
        new = [p for p in parameters if id(p) not in seen]
        seen.update(map(id, new))
        layers[-1].parameters += new

    def walk(module: nn.Module) -> None:
        take(module.parameters(recurse=False))
        for child in module.children():
            if not is_list(child) and is_list(module) and next(child.parameters(), None) is not None:
                layers.append(Layer())
            if is_list(child) or (not is_list(module) and any(map(is_list, child.modules()))):
                walk(child)
            else:
                layers[-1].modules.append(child)
                take(child.parameters())

    walk(base)
    return [layer for layer in layers if layer.parameters]


def is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.Sequential)


class Method:
    """Base of the ways to fine-tune. ``rate`` is the learning rate where none is given; None: that of the weights."""

    rate: ClassVar[float | None] = None
    keeps: ClassVar[bool] = False  # whether the base is afterwards what it was
    decay: float = 1.0

    def enter(self, base: nn.Module) -> None:
        """Make a base ready, once: say of its parameters which will ever learn. Called again it changes nothing."""

    def quiet(self, base: nn.Module) -> list[nn.Module]:
        """Those modules of a base that are to work as in use throughout training."""
        return []

    def open(self, layers: int, step: int, total: int, epoch: float) -> int:
        """How many of a base's layers, from the top, learn in a step, of ``total`` and of so many an epoch."""
        return layers


class Full(Method):
    """All of the base learns; lower layers more slowly, where asked (Howard and Ruder 2018, arXiv:1801.06146)."""

    def __init__(self, *, decay: Decay = 1.0) -> None:
        self.decay = decay


class Frozen(Method):
    """Nothing of the base learns."""

    rate, keeps = 2e-3, True

    def enter(self, base: nn.Module) -> None:
        base.requires_grad_(False)

    def quiet(self, base: nn.Module) -> list[nn.Module]:
        return [base]


class Gradual(Method):
    """First nothing of the base learns, then its top layer, then those below, one after the other (Howard and Ruder
    2018, arXiv:1801.06146)."""

    def __init__(
        self,
        *,
        by: Annotated[float, Field(ge=0, le=1, description="share of all steps after which all layers learn")] = 0.5,
        epochs: Annotated[
            float | None, Field(gt=0, description="from one layer to the next, in place of `by`; open: as `by` says")
        ] = None,
        decay: Decay = 1.0,
    ) -> None:
        self.by, self.epochs, self.decay = by, epochs, decay

    def open(self, layers: int, step: int, total: int, epoch: float) -> int:
        span = self.by * total / layers if self.epochs is None else self.epochs * epoch
        return layers if step >= span * layers else int(step / span)


class LoRA(Method):
    """Thin matrices beside some linear layers learn, nothing else of the base (Hu et al. 2021, arXiv:2106.09685)."""

    rate, keeps = 1e-3, True

    def __init__(
        self,
        *,
        rank: Annotated[int, Field(ge=1, description="columns of the thin matrices")] = 8,
        alpha: Annotated[float, Field(gt=0, description="their product counts alpha / rank times")] = 16.0,
        targets: Annotated[
            Literal["all"] | tuple[str, ...],
            Field(description="names of linear layers, such as query, key, value, out, up, down; or all"),
        ] = ("query", "value"),
        dropout: Annotated[float, Field(ge=0, lt=1, description="share of their inputs dropped")] = 0.0,
    ) -> None:
        self.rank, self.alpha, self.targets, self.dropout = rank, alpha, targets, dropout

    def enter(self, base: nn.Module) -> None:
        if any(isinstance(module, LoRALinear) for module in base.modules()):
            return
        names = self.chosen(base)
        base.requires_grad_(False)
        adapt(base, names, rank=self.rank, alpha=self.alpha, dropout=self.dropout)

    def chosen(self, base: nn.Module) -> list[str]:
        """Paths of the layers to adapt: of a base that is a stack of blocks, those in its blocks.

        Raises:
            UsageError: there are none of these names.
        """
        lists = [name for name, module in base.named_modules() if name and is_list(module)]
        linear = [
            name
            for name, module in base.named_modules()
            if type(module) is nn.Linear and (not lists or any(name.startswith(f"{one}.") for one in lists))
        ]
        known = {name.rpartition(".")[2] for name in linear}
        wanted = known if self.targets == "all" else set(self.targets)
        if wanted - known or not wanted:
            lost = ", ".join(sorted(wanted - known)) or "any name"
            raise UsageError(
                f"the base ({type(base).__name__}) has no linear layers called {lost}",
                place="training.fine_tuning.targets",
                mend=did_you_mean(lost, known) or "Take full, gradual or frozen in place of lora.",
            )
        return [name for name in linear if name.rpartition(".")[2] in wanted]

    def quiet(self, base: nn.Module) -> list[nn.Module]:
        return [module for module in base.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


TUNINGS: dict[str, type[Method]] = {"frozen": Frozen, "full": Full, "gradual": Gradual, "lora": LoRA}


class Tuned:
    """A model whose bases are fine-tuned, as training works with it.

    Args:
        bases: the bases by their paths in the model; True: what it starts from can be had again, unchanged.

    ``constant`` are the names of tensors that never change and can be had again: checkpoints do without them.
    """

    def __init__(self, model: nn.Module, bases: Mapping[str, bool], method: Method, *, seed: int = 0) -> None:
        self.method = method
        modules = [model.get_submodule(name) for name in bases]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(fold(seed, "fine-tuning") >> 1)
            for base in modules:
                method.enter(base)
        self.layers = [layers for base in modules if (layers := layers_of(base))]
        self.quiet = [module for base in modules for module in method.quiet(base)]
        # What somebody has frozen in a module of their own is not ours to open.
        self.free = [[[p for p in layer.parameters if p.requires_grad] for layer in base] for base in self.layers]
        thin = [p for one in model.modules() if isinstance(one, LoRALinear) for p in (one.lora_a, one.lora_b)]
        added = {id(p) for p in thin}
        based = {id(p) for base in modules for p in base.parameters()}
        every = list(model.parameters())
        self.learning = [p for p in every if p.requires_grad]
        self.usual = [p for p in every if (p.requires_grad or id(p) in based) and id(p) not in added]
        self.held = sum(p.nbytes for p in every)
        self.added = sum(p.nbytes for p in thin)
        sure = [module for module, again in zip(modules, bases.values(), strict=True) if again and method.keeps]
        still = {id(p) for base in sure for p in base.parameters() if not p.requires_grad}
        named = model.named_parameters(remove_duplicate=False)
        self.constant = frozenset(name for name, p in named if id(p) in still)

    @property
    def learns(self) -> int:
        """Parameters that learn, sooner or later."""
        return sum(p.numel() for p in self.learning)

    @property
    def before(self) -> int:
        """Parameters that would learn without fine-tuning."""
        return sum(p.numel() for p in self.usual)

    def memory(self, state: int) -> dict[str, dict[str, int]]:
        """Bytes of weights, gradients and the optimizer: now, and if all learned.

        ``state`` are those that the optimizer holds now; for all it is reckoned in proportion.
        """
        now, usual = sum(p.nbytes for p in self.learning), sum(p.nbytes for p in self.usual)
        return {
            "weights": {"now": self.held, "all_learns": self.held - self.added},
            "gradients": {"now": now, "all_learns": usual},
            "optimizer": {"now": state, "all_learns": round(state * usual / max(now, 1))},
        }

    def spread(self, optimizers: Sequence[Optimizer]) -> None:
        """Give each layer's parameters their rate, in optimizers that have not yet taken a step."""
        if self.method.decay == 1.0:
            return
        factors = {
            id(p): self.method.decay ** (len(base) - place)
            for base in self.layers
            for place, layer in enumerate(base)
            for p in layer.parameters
        }
        for optimizer in optimizers:
            assert not optimizer.state
            groups: list[dict[str, Any]] = []
            for group in optimizer.param_groups:
                parts: dict[float, list[nn.Parameter]] = {}
                for parameter in group["params"]:
                    parts.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
                groups += [{**group, "params": part, "lr": group["lr"] * one} for one, part in parts.items()]
            optimizer.param_groups[:] = sorted(groups, key=lambda group: -group["lr"])  # a head's, that is told, first

    def before_step(self, step: int, total: int, epoch: float) -> None:
        """Open the layers that learn in this step, and have those that do not work as in use."""
        for layers, free in zip(self.layers, self.free, strict=True):
            closed = len(layers) - self.method.open(len(layers), step, total, epoch)
            for place, (layer, parameters) in enumerate(zip(layers, free, strict=True)):
                learns = place >= closed
                if parameters and parameters[0].requires_grad != learns:
                    for parameter in parameters:
                        parameter.requires_grad_(learns)
                    for module in layer.modules:
                        module.train(learns)
                elif parameters and not learns:
                    in_use(layer.modules)
        in_use(self.quiet)


def in_use(modules: Sequence[nn.Module]) -> None:
    if modules and modules[0].training:
        for module in modules:
            module.eval()
