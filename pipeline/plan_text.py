"""A plan as text of 80 columns (paths may be longer)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.config import JOINT_MODELS
from pipeline.plan import Plan, PlannedStage, SourceSize
from pipeline.progress import clock, shortened
from pipeline.storage.bucket import is_remote
from pipeline.workers.cluster import ComputeConfig

_NAME = 30
_STATES = {"done": "reused", "begun": "resumed", "to do": "made"}


def plan_text(plan: Plan) -> str:
    """All of a plan, for the terminal."""
    return "\n".join(
        [
            f"run      {plan.config.name}",
            f"results  {plan.folder}",
            f"store    {plan.store}",
            f"on       {_resources(plan.config.compute)}",
            "",
            *_sources(plan),
            "",
            *_models(plan),
            *_memory(plan),
            "",
            *_stages(plan),
            "",
            _summary(plan),
        ]
    )


def _resources(compute: ComputeConfig) -> str:
    gpus = f"{compute.gpus_per_worker:g} GPU" if compute.gpus_per_worker else "no GPU"
    workers = f"{compute.workers} worker{'s' if compute.workers > 1 else ''}"
    cores = f"{compute.cpus_per_worker} core{'s' if compute.cpus_per_worker > 1 else ''}"
    return f"{workers}, each with {cores} and {gpus}"


def _sources(plan: Plan) -> Iterator[str]:
    yield f"{'domain':<22} {'format':<13} {'on disk':>9} {'rows':>11} {'events':>11} {'items':>9}"
    for source in plan.sources:
        yield _source(source)
    if any(source.counts is None for source in plan.sources):
        yield "rows, events and items are known once the stage corpus is done"


def _source(source: SourceSize) -> str:
    counts = source.counts or {}
    rows, events, items = (
        f"{counts[name]:,}" if name in counts else "-"
        for name in ("rows_read", "interactions", "items")
    )
    size = "-" if source.size is None else _size(source.size)
    form = source.domain.source.model_dump()["format"][:13]
    name = source.domain.name[:22]
    return f"{name:<22} {form:<13} {size:>9} {rows:>11} {events:>11} {items:>9}"


def _models(plan: Plan) -> Iterator[str]:
    for model, weights in plan.weights.items():
        yield f"{model:<22} {weights:>12,} weights, and what the items have"
    if any(planned.stage.name.startswith("vectors") for planned in plan.stages):
        base = plan.config.item_llm.encoder.base
        here = " and fetched" if is_remote(plan.store) else ""
        texts = "its texts are known once" if plan.texts is None else f"{plan.texts:,} texts,"
        rest = f"corpus is done{here}" if plan.texts is None else "of which it encodes new ones"
        yield f"item LLM on {base}:"[:79]
        yield f"  {texts} {rest}"
        if not plan.base_ready:
            yield "  the base is not there yet: the run unpacks or downloads it first"


def _memory(plan: Plan) -> Iterator[str]:
    """What each training takes of a worker, and how that is made up."""
    if plan.memory is None:
        yield "memory is known once the base is there"
        return
    columns = ("weights", "gradients", "optimizer", "backward", "items", "in all")
    yield f"\n{'memory of a worker':<20}{''.join(f'{name:>9} ' for name in columns)}".rstrip()
    llm = plan.memory.item_llm
    if llm is not None:
        stage = f"item LLM, ZeRO {plan.config.item_llm.finetuning.zero_stage}"
        held = llm.weights + llm.gathered
        parts = [held, llm.gradients, llm.optimizer, llm.activations, None, llm.total]
        yield _memory_line(stage, parts)
    for model, memory in plan.memory.models.items():
        count = _items(plan, together=model in JOINT_MODELS)
        items = None if count is None else count * memory.item
        total = memory.total(count or 0)
        parts = [memory.weights, memory.gradients, memory.optimizer, memory.activations]
        yield _memory_line(model, [*parts, items, total])
    yield "beside Python, PyTorch and what kernels take for a moment"


def _memory_line(name: str, parts: Sequence[int | None]) -> str:
    shown = ("-" if part is None else _size(part) for part in parts)
    return f"{name:<20}{''.join(f'{part:>9} ' for part in shown)}".rstrip()


def _items(plan: Plan, *, together: bool) -> int | None:
    """Items of a training's table: of all domains, or of the largest; None before the corpus."""
    counts = [source.counts["items"] for source in plan.sources if source.counts is not None]
    if len(counts) < len(plan.sources):
        return None
    return sum(counts) if together else max(counts)


def _stages(plan: Plan) -> Iterator[str]:
    yield f"{'':4}{'stage':<{_NAME}} {'will be':<8} {'slots':>5} {'took':>8}  reads"
    for number, planned in enumerate(plan.stages, 1):
        yield _stage(number, planned, plan.config.compute.workers)


def _stage(number: int, planned: PlannedStage, workers: int) -> str:
    stage = planned.stage
    seconds = planned.facts.get("seconds")
    took = "-" if seconds is None else clock(seconds)
    slots = f"{min(stage.slots, workers)}/{workers}"
    head = f"{number:>3} {shortened(stage.name, _NAME):<{_NAME}} {_STATES[planned.state]:<8} "
    head += f"{slots:>5} {took:>8}  "
    return head + _reads([needed.name for needed in stage.inputs], 80 - len(head))


def _reads(names: list[str], room: int) -> str:
    """The names of inputs as far as they fit, then how many more there are."""
    if not names:
        return "sources"
    text = ""
    for number, name in enumerate(names):
        more = f" +{len(names) - number - 1}" if number + 1 < len(names) else ""
        longer = f"{text}, {name}" if text else name
        if len(longer + more) > room:
            return f"{text} +{len(names) - number}" if text else f"{len(names)} stages"
        text = longer
    return text


def _summary(plan: Plan) -> str:
    count = {state: sum(p.state == state for p in plan.stages) for state in _STATES}
    return (
        f"{len(plan.stages)} stages: {count['done']} reused, {count['begun']} resumed, "
        f"{count['to do']} made. Nothing was run."
    )


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
