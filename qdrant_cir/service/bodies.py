"""Bodies of requests and answers, as the OpenAPI description shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

__all__ = [
    "CandidateBody",
    "ErrorAnswer",
    "ExplainBody",
    "ExplainAnswer",
    "FacetsAnswer",
    "GivenPicture",
    "InfoAnswer",
    "ReferenceBody",
    "RerankAnswer",
    "RerankBody",
    "SamplesAnswer",
    "SearchAnswer",
    "SearchBody",
    "StateAnswer",
    "StoredPicture",
    "UploadAnswer",
    "UploadedPicture",
]

MOST = 1000
"""Results and candidates of one request."""

ImageId: TypeAlias = (
    Annotated[StrictStr, Field(min_length=1, max_length=1024)] | Annotated[StrictInt, Field(ge=0, lt=2**64)]
)
"""An id as it was indexed; of an attached collection, the id of the point."""

Text: TypeAlias = Annotated[StrictStr, Field(max_length=10_000)]
Name: TypeAlias = Annotated[StrictStr, Field(min_length=1, max_length=255)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StoredPicture(_Body):
    """A picture of the collection."""

    id: ImageId


class UploadedPicture(_Body):
    """A picture that was sent to ``/uploads``."""

    upload: Annotated[StrictStr, Field(pattern="^[0-9a-f]{64}$")]


class GivenPicture(_Body):
    """The bytes of a picture file in base64, or a data URI."""

    data: Annotated[StrictStr, Field(min_length=4)]


ReferenceBody: TypeAlias = StoredPicture | UploadedPicture | GivenPicture


class SearchBody(_Body):
    """One query: a reference, a text, or both."""

    collection: Name | None = Field(None, description="May be left out where one collection is served.")
    reference: ReferenceBody | None = None
    references: Annotated[list[ReferenceBody], Field(min_length=1, max_length=16)] | None = Field(
        None, description="Several instead of one."
    )
    weights: list[Annotated[float, Field(ge=0, le=1e6, strict=True)]] | None = Field(
        None, description="One per reference; equal by default."
    )
    text: Text = ""
    must_not: Text = ""
    must_not_weight: Annotated[float, Field(ge=0, le=1e6, strict=True)] = 0.5
    limit: Annotated[StrictInt, Field(ge=1, le=MOST)] = 10
    rerank_depth: Annotated[StrictInt, Field(ge=0, le=MOST)] = Field(50, description="0 is stage one alone.")
    filter: dict[str, Any] | None = Field(None, description="A filter of Qdrant's, as JSON.")
    exclude_reference: StrictBool = False
    group_by: Annotated[StrictStr, Field(min_length=1, max_length=255)] | None = Field(
        None, description="A payload field: one result per value."
    )
    confidence: Annotated[float, Field(gt=0, lt=1, strict=True)] | None = Field(
        None, description="Stop early once this share of the results is expected to match full re-ranking."
    )
    min_match: Annotated[float, Field(ge=0, le=1, strict=True)] | None = Field(
        None, description="Least probability of a good match; below it `is_match` is false."
    )
    deadline_ms: Annotated[StrictInt, Field(ge=1, le=600_000)] | None = Field(
        None, description="Milliseconds from the request's arrival; what is not re-ranked by then stays so."
    )


class ExplainBody(SearchBody):
    """A query, and the result of it to explain."""

    candidate: ImageId


class CandidateBody(BaseModel):
    """One result: the final place, both scores, and the place in stage one."""

    id: str | int
    score: float | None
    rank: int
    retrieval_score: float
    retrieval_rank: int
    group: Any = None
    view: str | None = None
    payload: dict[str, Any]


class TimingsBody(BaseModel):
    """Seconds per step, and those that the query waited for its turn."""

    encode: float
    compose: float
    retrieve: float
    fetch: float
    rerank: float
    total: float
    waited: float


class SearchAnswer(BaseModel):
    """Results, best first."""

    candidates: list[CandidateBody]
    timings: TimingsBody
    notes: list[str]
    rerank_mode: Literal["none", "exact", "compressed", "adaptive", "budget"]
    scored: int
    precision: str
    confidence: float | None = None
    match_probability: float | None = None
    is_match: bool | None = None


class RerankQuery(BaseModel):
    """A text, with a picture or without."""

    text: Text
    image: StrictStr | None = Field(None, description="A data URI, or an address where the service allows it.")


class RerankDocument(BaseModel):
    """A picture: an image of the collection, or one that is sent."""

    id: ImageId | None = None
    image: StrictStr | None = None


class RerankBody(BaseModel):
    """What clients of Cohere, Jina and vLLM send; fields that are not listed are ignored."""

    model: Name | None = Field(None, description="The collection; may be left out where one is served.")
    query: Text | RerankQuery
    documents: Annotated[list[RerankDocument | StrictStr], Field(min_length=1, max_length=MOST)] = Field(
        description="Pictures: ids of the collection, or data URIs."
    )
    top_n: Annotated[StrictInt, Field(ge=1)] | None = None
    return_documents: StrictBool | None = None


class RerankedBody(BaseModel):
    """One document by its place in the request; the higher the relevance, the better."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class RerankAnswer(BaseModel):
    """Documents, best first."""

    id: str
    model: str
    results: list[RerankedBody]
    meta: dict[str, Any]


class ExplainAnswer(BaseModel):
    """Why a result stands where it stands; ``Explanation`` in the library has the meaning of every field."""

    candidate: dict[str, Any]
    count: int
    first_retrieved: dict[str, Any]
    words: list[dict[str, Any]]
    cells: dict[str, Any] | None
    precision: str
    seconds: float
    notes: list[str]


class UploadAnswer(BaseModel):
    """The name of what was sent: the sha256 of its bytes."""

    upload: str


class FacetValue(BaseModel):
    """A value and how many images have it."""

    value: str | int | bool
    count: int


class FacetBody(BaseModel):
    """A payload field with few values."""

    field: str
    values: list[FacetValue]


class FacetsAnswer(BaseModel):
    """Fields to filter by; of a large collection, those of the first ``counted`` images."""

    facets: list[FacetBody]
    counted: int


class SampleBody(BaseModel):
    """An image to begin with."""

    id: str | int
    payload: dict[str, Any]


class SamplesAnswer(BaseModel):
    """Images to begin with."""

    candidates: list[SampleBody]


class CollectionBody(BaseModel):
    """A collection that is served."""

    name: str
    count: int
    bundle: str
    attached: bool


class InfoAnswer(BaseModel):
    """The collections that are served."""

    version: str
    collections: list[CollectionBody]


class StateAnswer(BaseModel):
    """Whether the service runs."""

    status: str


class ErrorDetail(BaseModel):
    """The error's class and what to do."""

    type: str
    message: str


class ErrorAnswer(BaseModel):
    """An error."""

    error: ErrorDetail
