"""Small steps replayed: forward and backward as one plain list of torch's operations.

Of a step that takes half a millisecond, most is spent in modules, in autograd's records and in looking functions up.
Once batches of a shape have come often, one step is recorded: the operations that autograd in the end calls, forward
and backward. From then on these are called one after the other. They are the same operations on the same numbers in
the same order, so that losses and gradients are the same bits; that they are is checked on some batches before a record
is used (benchmarks/replay.py tells what it is worth).
"""

from __future__ import annotations

import contextlib
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map_only

from ..data.batches import Batch, ColumnBatch
from ..model import Model
from .mode import DispatchMode
from .precision import Precision

__all__ = ["LONG", "Replay", "record"]

OFTEN = 100  # times that batches of a shape must have come before one is recorded
LONG = 400  # steps of a run from which on the time that recording takes is earned back (benchmarks/replay.py)
SHORT = 0.02  # seconds a step, above which there is little to gain
MOST = 8  # shapes that are recorded
CHECKS = 3  # batches on which what was recorded must come to the same bits as a plain step before it is used

ATEN = torch.ops.aten
# torch's own entry to these takes half as long as the general one; both call the same operation.
SHORTER = (
    "add", "addmm", "bmm", "convolution", "cat", "div", "dot", "exp", "mm", "mul", "neg", "ones_like", "permute",
    "relu", "rsub", "select", "sigmoid", "stack", "sub", "sum", "t", "tanh", "transpose", "unsqueeze",
    "_log_softmax", "_log_softmax_backward_data", "_softmax", "_softmax_backward_data", "embedding",
)  # fmt: skip

Leaves = list[Tensor | None]
Step = Callable[..., Sequence[Tensor | None]]


@dataclass
class Shape:
    """What is known of batches of one shape."""

    times: int = 0
    seconds: float = 0.0
    step: Step | None = None
    unchecked: int = CHECKS


@dataclass
class Replay:
    """Goes forward and backward through a batch as ``plain`` does, and gives the loss. The gradients are then on
    ``parameters``, which had none before.

    For a model on the CPU that is in training, keeps the storage of its tensors, and does in each step what its
    weights, buffers, batch and torch's random numbers say: modules of somebody else's may count steps for themselves.
    """

    model: Model
    parameters: list[nn.Parameter]
    precision: Precision
    plain: Callable[[Batch], Tensor]
    shapes: dict[Any, Shape] = field(default_factory=dict)

    def __call__(self, batch: Batch) -> Tensor:
        leaves = leaves_of(batch)
        key = tuple([leaf if leaf is None else (leaf.shape, leaf.stride(), leaf.dtype) for leaf in leaves])
        shape = self.shapes.get(key) or self.shapes.setdefault(key, Shape())
        if shape.step is not None:
            return self.replayed(shape.step, leaves) if shape.unchecked == 0 else self.checked(batch, shape)
        began = time.perf_counter()
        loss = self.plain(batch)
        shape.times += 1
        shape.seconds += time.perf_counter() - began
        if shape.times == OFTEN and shape.seconds < SHORT * OFTEN and self.recorded < MOST:
            with contextlib.suppress(Exception):  # what cannot be recorded, as what looks at values, stays as it is
                shape.step = record(self.model, self.parameters, self.precision, batch)
        return loss

    @staticmethod
    def takes(model: Model) -> bool:
        """Whether all modules of a model are known to keep no count of their own."""
        return all(type(module).__module__.partition(".")[0] in ("zhixing", "torch") for module in model.modules())

    @property
    def recorded(self) -> int:
        return sum(shape.step is not None for shape in self.shapes.values())

    def replayed(self, step: Step, leaves: Leaves) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():  # below all that autograd adds to an operation
            loss, *gradients = step(*leaves)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        assert loss is not None
        return loss

    def checked(self, batch: Batch, shape: Shape) -> Tensor:
        """A plain step, and before it the same replayed; if they are not the same, that was the last time."""
        step, buffers = shape.step, [*self.model.buffers()]
        before, random = [buffer.clone() for buffer in buffers], torch.get_rng_state()
        assert step is not None

        def seen(passed: Callable[[], Tensor]) -> Leaves:
            """Loss, gradients, buffers, and where the random numbers stand, after a pass from where this one began."""
            for buffer, copy in zip(buffers, before, strict=True):
                buffer.copy_(copy)
            for parameter in self.parameters:
                parameter.grad = None
            torch.set_rng_state(random)
            loss = passed()
            after = [buffer.clone() for buffer in buffers]
            return [loss, *(parameter.grad for parameter in self.parameters), *after, torch.get_rng_state()]

        found = Leaves()
        with contextlib.suppress(Exception):  # a record that fails is let go, and the plain step tells of what is wrong
            found = seen(lambda: self.replayed(step, leaves_of(batch)))
        wanted = seen(lambda: self.plain(batch))
        shape.unchecked -= 1
        if not same(found, wanted):
            shape.step = None
        assert wanted[0] is not None
        return wanted[0]


def same(some: Leaves, others: Leaves) -> bool:
    """Whether these are the same bits in the same order in memory; what is not a number is like nothing."""
    return len(some) == len(others) and all(
        one is other
        if one is None or other is None
        else (one.dtype, one.stride()) == (other.dtype, other.stride()) and torch.equal(one, other)
        for one, other in zip(some, others, strict=True)
    )


# The tensors of a batch, and a batch of tensors ----------------------------------------------------------------------


def leaves_of(batch: Batch) -> Leaves:
    out: Leaves = [batch.rows, batch.share, *batch.weights.values()]
    for columns in (batch.columns, batch.blends):
        for values, mask in columns.values():
            out += (values, mask)
    return out


def batch_of(like: Batch, leaves: Leaves) -> Batch:
    """A batch of other tensors. It has no moment: what depends on one cannot be recorded."""
    given = iter(leaves)

    def column() -> ColumnBatch:
        values = next(given)
        assert values is not None
        return ColumnBatch(values, next(given))

    rows, share = next(given), next(given)
    assert rows is not None
    weights = {name: next(given) for name in like.weights}
    columns = {name: column() for name in like.columns}
    return Batch(columns, rows, weights, {name: column() for name in like.blends}, share)  # type: ignore[arg-type]


# Recording -----------------------------------------------------------------------------------------------------------


class Losses(nn.Module):
    """The model as a module that gives its loss, so that torch can call it with other tensors for its weights."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model.loss(batch)


def record(model: Model, parameters: list[nn.Parameter], precision: Precision, batch: Batch) -> Step:
    """The operations of a step on batches of this shape, as a function of :func:`leaves_of` them: it gives the loss and
    the gradient of each of ``parameters``, and changes buffers as the model does.

    Raises:
        Exception: the step cannot be recorded.
    """
    losses = Losses(model)
    own = dict(losses.named_parameters()) | dict(losses.named_buffers())
    names = {id(tensor): name for name, tensor in own.items()}
    learned = [names[id(parameter)] for parameter in parameters]

    def step(tensors: list[Tensor], leaves: Leaves) -> Leaves:
        given = dict(zip(own, tensors, strict=True))
        with torch.enable_grad():
            wanted = [given[name].requires_grad_() for name in learned]
            with precision.cast(torch.device("cpu")):
                loss = functional_call(losses, given, (batch_of(batch, leaves),))
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
            taken = {tensor.untyped_storage().data_ptr() for tensor in (*tensors, *leaves) if tensor is not None}
            return [loss.detach(), *(laid_out(*both, taken) for both in zip(gradients, wanted, strict=True))]

    leaves = leaves_of(batch)
    tried = [tensor.detach() if isinstance(tensor, nn.Parameter) else tensor.clone() for tensor in own.values()]
    recorder = Recorder([*tried, *leaves])
    with torch.random.fork_rng(devices=[]), recorder:
        results = step(tried, leaves)
    return pruned(recorder.ended(results), [tensor.detach() for tensor in own.values()])


class Recorder(DispatchMode):  # type: ignore[no-untyped-call]
    """Writes down each operation that torch's dispatcher is given while it is entered, in terms of the tensors given
    and of earlier results.

    Raises:
        ValueError: an operation looks at values, or at a tensor from elsewhere.
    """

    def __init__(self, given: Leaves) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.seen: dict[int, tuple[Tensor, fx.Node]] = {}  # by id, which stays a tensor's own while it is kept here
        for place, tensor in enumerate(given):
            self.note(tensor, self.graph.placeholder(f"given_{place}"))

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if by_value(func, args):
            raise ValueError(f"{func} looks at values")
        given = tree_map_only(Tensor, self.node, (tuple(args), dict(kwargs or {})))
        out = func(*args, **(kwargs or {}))
        call = self.graph.call_function(func, *given)
        if isinstance(out, tuple | list):
            for place, part in enumerate(out):
                self.note(part, self.graph.call_function(operator.getitem, (call, place)))
        else:
            self.note(out, call)
        return out

    def note(self, value: Any, node: fx.Node) -> None:
        if isinstance(value, Tensor):
            self.seen[id(value)] = value, node

    def node(self, tensor: Tensor) -> fx.Node:
        if id(tensor) not in self.seen:
            raise ValueError("a tensor is neither given nor made here")
        return self.seen[id(tensor)][1]

    def ended(self, results: Leaves) -> fx.Graph:
        """All that was recorded, as a graph that gives ``results``."""
        self.graph.output([one if one is None else self.node(one) for one in results])
        return self.graph


def by_value(func: Any, args: Sequence[Any]) -> bool:
    """Whether what an operation gives to Python, or how much, depends on what its tensors hold."""
    if func is ATEN.index.Tensor:
        return any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1])
    return not {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}.isdisjoint(func.tags)


def laid_out(gradient: Tensor | None, parameter: Tensor, taken: set[int]) -> Tensor | None:
    """A gradient as autograd hands it over: laid out as its parameter, since fused optimizers read both in a row, and
    in memory of its own (``taken`` is where others are), since clipping changes it in place."""
    if gradient is None:
        return None
    place = gradient.untyped_storage().data_ptr()
    if gradient.stride() == parameter.stride() and place not in taken:
        taken.add(place)
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def pruned(graph: fx.Graph, constants: list[Tensor]) -> Step:
    """The graph as a function of the leaves: without what only autograd needs, and with views of weights made once."""
    given = [node for node in graph.nodes if node.op == "placeholder"]
    calls = [node for node in graph.nodes if node.op == "call_function"]
    held = dict(zip(given, constants, strict=False))  # weights, buffers, and views of them
    for node in calls:
        if node.target is ATEN.detach.default:
            node.replace_all_uses_with(node.args[0])
        elif node.target is ATEN.t.default and node.args[0].target is ATEN.t.default:
            node.replace_all_uses_with(node.args[0].args[0])
        elif node.all_input_nodes and all(one in held for one in node.all_input_nodes):
            view = viewed(node, held)
            if view is not None:
                held[node] = view
    out, new = fx.Graph(), dict[fx.Node, fx.Node]()
    needed = needed_of(graph)
    kept = {node: tensor for node, tensor in held.items() if node in needed}
    for node in (*kept, *given[len(constants) :]):
        new[node] = out.placeholder(node.name)
    for node in calls:
        if node in needed and node not in kept:
            new[node] = shorter(out, out.node_copy(node, new.__getitem__))
    out.output(fx.map_arg(next(iter(reversed(graph.nodes))).args[0], new.__getitem__))
    run, tensors = fx.GraphModule(nn.Module(), out).forward, list(kept.values())
    return lambda *leaves: run(*tensors, *leaves)


def viewed(node: fx.Node, held: dict[fx.Node, Tensor]) -> Tensor | None:
    """What an operation on tensors that keep their place gives, if it is another look at one of them."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target._schema.is_mutable:
        return None
    args, kwargs = fx.map_arg((node.args, node.kwargs), held.__getitem__)
    found = node.target(*args, **kwargs)
    places = {held[one].untyped_storage().data_ptr() for one in node.all_input_nodes}
    is_view = isinstance(found, Tensor) and found.untyped_storage().data_ptr() in places
    return found if is_view else None


def needed_of(graph: fx.Graph) -> set[fx.Node]:
    """What the results depend on, and what changes tensors or draws random numbers."""
    needed = set[fx.Node]()
    for node in reversed(graph.nodes):
        target = node.target
        acts = isinstance(target, torch._ops.OpOverload) and (
            target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags
        )
        if node.op == "output" or acts or node in needed:
            needed |= {node, *node.all_input_nodes}
    return needed


def shorter(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """The same operation by torch's own entry to it."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return node
    name = target._schema.name.removeprefix("aten::")
    if name == "view":
        other = graph.call_method(name, node.args)
    elif name in SHORTER:
        other = graph.call_function(getattr(torch, name), node.args, node.kwargs)
    else:
        return node
    graph.erase_node(node)
    return other
