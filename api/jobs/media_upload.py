"""Stores the long images and files of a request before its job, which takes them over when it is created."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any

from api.jobs.earlier_items import names_state
from api.runtime.context import AppContext
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_timeout
from api.schema.requests import Submit
from api.web.problems import Problem, fault
from worker.jobs.errors import StoreUnavailable
from worker.jobs.input_items import MAX_BYTES
from worker.store.jobs.inputs import KeptMedia
from worker.store.jobs.uploads import Upload
from worker.store.media import MediaStrings


async def with_own_media(
    context: AppContext, app: str, body: Submit, media: MediaStrings | None
) -> tuple[Submit, MediaStrings | None]:
    """Return (the request, the images and files that are to be uploaded).

    A request that continues another one keeps them among its items, since later ones continue these. Raises a Problem
    (413) if they are longer than what can be continued.
    """
    if media is None or not names_state(body):
        return body, media
    size, most = media.size, max(MAX_BYTES, context.settings.body_limit)
    if size > most:
        detail = (
            f"The images and files of a request that continues another one have {size} bytes; at most {most} can be "
            "continued. Begin anew, and send in `input` what is still needed."
        )
        raise Problem(413, "input_too_large", detail, [fault("/input", detail, "input_too_large")])
    whole = await context.large_work.run(app, size, media.restored, body.input)
    return body.model_copy(update={"input": whole}), None


def uploaded(context: AppContext, app: str, media: MediaStrings | None) -> AbstractAsyncContextManager[dict[str, Any]]:
    """Store images and files before their job; give the fields of a JobRequest with which they become part of it.

    Gives {} if there are none. What is not part of a job at the end of the block is deleted. Raises StoreUnavailable.
    """
    return _uploaded(context, app, media) if media is not None else nullcontext({})


@asynccontextmanager
async def _uploaded(context: AppContext, app: str, media: MediaStrings) -> AsyncIterator[dict[str, Any]]:
    sizes = [len(pieces) for pieces in media.strings]
    upload = await with_timeout(STORE_TIMEOUT_S, context.jobs.begin_upload(app, media.mark, media.size))
    async with _kept_by_job(upload):
        for pieces in media.strings:
            while pieces:
                await with_timeout(STORE_TIMEOUT_S, upload.add(pieces.pop(0)))
        yield {"upload": upload, "media_sizes": sizes}


@asynccontextmanager
async def uploaded_again(context: AppContext, app: str, media: KeptMedia | None) -> AsyncIterator[dict[str, Any]]:
    """As `uploaded`, for the images and files of a job that is run again; never holds more than one piece of them."""
    if media is None:
        yield {}
        return
    upload = await context.jobs.begin_upload(app, media.mark, media.size)
    async with _kept_by_job(upload):
        async for piece in media.pieces():
            await upload.add(piece)
        yield {"upload": upload, "media_sizes": media.sizes}


@asynccontextmanager
async def _kept_by_job(upload: Upload) -> AsyncIterator[None]:
    """Delete at the end what is not part of a job then."""
    try:
        yield
    finally:
        with suppress(StoreUnavailable):
            await with_timeout(STORE_TIMEOUT_S, upload.discard())
