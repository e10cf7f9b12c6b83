"""The paths of a collection's tuning: begin one, ask how far it is and what it found."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request, Security
from pydantic import BaseModel, ConfigDict, Field

from secure_embed.access import required_scope
from secure_embed.answers import TuningView
from secure_embed.api.body import StrictRoute
from secure_embed.api.call import bearer, call_of, threads_of, vault_of
from secure_embed.api.models import EffortAnswer, ReceiptAnswer
from secure_embed.api.shapes import effort_answer, receipt_answer, thousandths
from secure_embed.collection import Asked, Measured
from secure_embed.types import Action

__all__ = ["FIELD_NAMES", "router"]

router = APIRouter(prefix="/v1", route_class=StrictRoute)

Text = Annotated[str, Field(min_length=1, max_length=8_192)]


class TuningRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    target: float = Field(default=0.99, description="recall against exact search; 0.5 to 0.999")
    k: int = Field(default=10, description="how many hits are compared; 1 to 100")
    queries: Annotated[list[Text], Field(max_length=200)] = Field(
        default_factory=list, description="texts that are searched with as well: 20 to 200 different ones; not kept"
    )
    bits: int | None = Field(default=None, description="measure codes of so many bits a dimension, 1 to 4")
    filtered: bool = Field(default=True, description="the target holds behind a filter that leaves a tenth, too")
    apply: bool = Field(default=False, description="what is chosen takes effect; otherwise it is only reported")


class MeasuredAnswer(BaseModel):
    effort: EffortAnswer
    recall: float = Field(description="mean share of the exact answer that was found; cut to thousandths, as all here")
    recall_low: float = Field(description="the lower end of its one-sided 95 % interval, which has to meet the target")
    recall_queries: float | None = Field(description="of the texts that were given")
    recall_filtered: float | None = Field(description="behind a filter; null where all that it leaves is opened")
    openings: int = Field(description="vectors that one query opens, in the mean")
    openings_filtered: int | None = Field(description="the same, behind that filter")
    codes: int = Field(description="codes that one query is compared with, in the mean")
    meets: bool


class ReportAnswer(BaseModel):
    sample: int = Field(description="records whose vectors were searched with")
    lists: int = Field(description="of the codebook that was measured")
    before: MeasuredAnswer | None = Field(description="the effort that was in force")
    chosen: MeasuredAnswer | None = Field(description="the cheapest that meets the target; null: none does")
    bits_recommended: int | None = Field(description="where none does: measure with so many")
    measured: list[MeasuredAnswer]


class TuningAnswer(BaseModel):
    id: str
    collection: str
    state: str = Field(description="running, done or failed")
    target: float
    k: int
    bits: int
    filtered: bool
    apply: bool
    applied: bool
    done: int = Field(description="efforts measured so far")
    total: int = Field(description="the most that there can be")
    error: str | None
    report: ReportAnswer | None
    receipt: ReceiptAnswer


FIELD_NAMES = frozenset(TuningRequest.model_fields)


def _door() -> list[Any]:
    return [Security(bearer, scopes=[required_scope(Action.COLLECTION_TUNE)])]


@router.post("/collections/{collection}/tunings", status_code=202, name=Action.COLLECTION_TUNE, dependencies=_door())
async def tune(request: Request, collection: str, asked: TuningRequest) -> TuningAnswer:
    """Begin to measure how far a search has to go. It goes on while the service answers; ask for the report by its id."""
    return _tuning(
        await threads_of(request).run(
            vault_of(request).tunings.begin,
            call_of(request),
            collection,
            Asked(target=asked.target, k=asked.k, bits=asked.bits, filtered=asked.filtered, apply=asked.apply),
            asked.queries,
        )
    )


@router.get("/collections/{collection}/tunings/{tuning}", name=Action.COLLECTION_TUNE, dependencies=_door())
async def show_tuning(request: Request, collection: str, tuning: UUID) -> TuningAnswer:
    """Only a collection's newest tuning is kept."""
    return _tuning(await threads_of(request).run(vault_of(request).tunings.show, call_of(request), collection, tuning))


def _tuning(view: TuningView) -> TuningAnswer:
    tuning = view.tuning
    report = None
    if tuning.state == "done":
        report = ReportAnswer(
            sample=tuning.sample,
            lists=tuning.lists,
            before=None if tuning.before is None else _measured(tuning.before),
            chosen=None if tuning.chosen is None else _measured(tuning.chosen),
            bits_recommended=tuning.bits_recommended,
            measured=[_measured(each) for each in tuning.measured],
        )
    return TuningAnswer(
        id=tuning.id,
        collection=view.collection,
        state=tuning.state,
        target=tuning.asked.target,
        k=tuning.asked.k,
        bits=tuning.bits,
        filtered=tuning.asked.filtered,
        apply=tuning.asked.apply,
        applied=tuning.applied,
        done=view.progress.done,
        total=view.progress.total,
        error=tuning.error,
        report=report,
        receipt=receipt_answer(view.receipt),
    )


def _measured(found: Measured) -> MeasuredAnswer:
    return MeasuredAnswer(
        effort=effort_answer(found.effort),
        recall=thousandths(found.recall),
        recall_low=thousandths(found.recall_low),
        recall_queries=None if found.recall_texts is None else thousandths(found.recall_texts),
        recall_filtered=None if found.recall_filtered is None else thousandths(found.recall_filtered),
        openings=round(found.openings),
        openings_filtered=None if found.openings_filtered is None else round(found.openings_filtered),
        codes=round(found.codes),
        meets=found.meets,
    )
