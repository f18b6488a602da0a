"""The routes: the page, and the API that it uses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from braintumor_kit import __version__
from braintumor_kit.errors import BtkitError, ImageError
from braintumor_kit.notice import NOTICE
from braintumor_kit.progress import log
from braintumor_kit.report.page import rendered
from braintumor_kit.serve.answers import Answer, Explanation, Model, Refused, VolumeAnswer
from braintumor_kit.serve.bodies import RefusedError, Uploads
from braintumor_kit.serve.desk import BusyError, Desk, GoneError
from braintumor_kit.serve.engine import Engine
from braintumor_kit.serve.limits import Limits
from braintumor_kit.serve.scans import MOST

HUNG_UP = 499
"""What is noted of a request whose sender has hung up; nobody reads it."""

PAGE = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}

Method = Annotated[str, Query(max_length=200, description="Of explanation; `/api/model` lists them.")]
Target = Annotated[
    str, Query(max_length=500, description="What the map explains: predicted, a class, or CLASS-vs-CLASS.")
]
Slice = Annotated[int | None, Query(ge=1, le=MOST, description="Of a volume, from 1; the middle one by default.")]
Plane = Annotated[
    Literal["axial", "coronal", "sagittal"] | None,
    Query(description="That a NIfTI volume is cut in; the model's own by default."),
]

_PICTURE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The bytes of one picture (PNG, JPEG, TIFF, WebP or another usual format), of a NIfTI volume, "
        "of a DICOM file, or of a tar of the DICOM files of a series.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refused, "description": "The request is malformed."},
    408: {"model": Refused, "description": "The upload took too long."},
    413: {"model": Refused, "description": "The picture is too large."},
    422: {"model": Refused, "description": "There is no picture, it cannot be read, or a value is wrong."},
    429: {"model": Refused, "description": "The server is busy: come again after the seconds of Retry-After."},
}


def make_app(engine: Engine, limits: Limits) -> FastAPI:
    """The application; who may ask it is the guard's business."""
    desk, uploads = Desk(limits), Uploads(limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(
        title="btkit serve", version=__version__, description=f"Brain-tumour MRI classification. {NOTICE}",
        openapi_url="/api/openapi.json", docs_url=None, redoc_url=None, lifespan=lifespan,
    )  # fmt: skip
    _handle_errors(app, limits)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        return (files("braintumor_kit.serve") / "page" / "index.html").read_text(encoding="utf-8")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in PAGE:
            raise RefusedError(404, "there is no such page.")
        return Response((files("braintumor_kit.serve") / "page" / name).read_bytes(), media_type=PAGE[name])

    @app.get("/api/model", response_model=Model)
    async def model() -> Model:
        """What is served: classes, methods, bounds."""
        return engine.model(limits)

    @app.post("/api/predict", response_model=Answer, openapi_extra=_PICTURE, responses=_REFUSALS)
    async def predict(request: Request, slice: Slice = None, plane: Plane = None) -> Answer:
        """Class probabilities of one picture, with what speaks against using them."""
        async with uploads.held(request) as content:
            return await desk.do(lambda: engine.predict(content, slice, plane), request.is_disconnected)

    @app.post("/api/volume", response_model=VolumeAnswer, openapi_extra=_PICTURE, responses=_REFUSALS)
    async def volume(request: Request, plane: Plane = None) -> VolumeAnswer:
        """The same of a whole volume: what its slices come to, and where each class is likeliest."""
        async with uploads.held(request) as content:
            return await desk.do(lambda: engine.volume(content, plane), request.is_disconnected)

    @app.post("/api/explain", response_model=Explanation, openapi_extra=_PICTURE, responses=_REFUSALS)
    async def explain(
        request: Request, method: Method = "gradcam", target: Target = "predicted", slice: Slice = None,
        plane: Plane = None,
    ) -> Explanation:  # fmt: skip
        """One picture's probabilities with a map of where the network looks."""
        engine.check(method, target)
        async with uploads.held(request) as content:
            return await desk.do(lambda: engine.explain(content, method, target, slice, plane), request.is_disconnected)

    @app.post(
        "/api/summary", response_class=HTMLResponse, openapi_extra=_PICTURE,
        responses={200: {"content": {"text/html": {}}, "description": "The page."}, **_REFUSALS},
    )  # fmt: skip
    async def summary(
        request: Request, method: Method = "gradcam", target: Target = "predicted", slice: Slice = None,
        plane: Plane = None,
    ) -> str:  # fmt: skip
        """One page, to print or keep: the picture, its map, the probabilities and what speaks against them."""
        engine.check(method, target)
        async with uploads.held(request) as content:
            found = await desk.do(
                lambda: engine.explain(content, method, target, slice, plane), request.is_disconnected
            )
        return rendered("summary.html", found=found, model=engine.model(limits))

    return app


def _handle_errors(app: FastAPI, limits: Limits) -> None:
    """Every refusal is one sentence."""

    def refused(status: int, message: str, **headers: str) -> JSONResponse:
        return JSONResponse(
            {"error": message}, status, {name.replace("_", "-"): text for name, text in headers.items()}
        )

    @app.exception_handler(RefusedError)
    async def of_request(request: Request, error: RefusedError) -> Response:
        return refused(error.status, str(error), connection="close")  # what is still on its way is not read

    @app.exception_handler(BusyError)
    async def of_row(request: Request, error: BusyError) -> Response:
        return refused(
            429, "the server is busy; try again soon.", retry_after=str(limits.retry_seconds), connection="close"
        )

    @app.exception_handler(GoneError)
    async def of_nobody(request: Request, error: GoneError) -> Response:
        return Response(status_code=HUNG_UP)

    @app.exception_handler(ImageError)
    async def of_picture(request: Request, error: ImageError) -> Response:
        return refused(422, f"{str(error)[:1].upper()}{str(error)[1:]}.")

    @app.exception_handler(BtkitError)
    async def of_input(request: Request, error: BtkitError) -> Response:
        return refused(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def of_values(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return refused(422, f"{'.'.join(str(part) for part in first['loc'][1:])}: {first['msg'].lower()}.")

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        answer = refused(error.status_code, f"{str(error.detail).lower()}.")
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def of_btkit(request: Request, error: Exception) -> Response:
        log.error("a fault of btkit itself", exc_info=error)
        return refused(500, "a fault of btkit itself; the server's log has it.")
