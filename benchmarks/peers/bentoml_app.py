"""BentoML with the image as the raw body. `bentoml serve benchmarks.peers.bentoml_app:Classifier`, in BentoML's environment.

BENCH_SETTINGS (JSON) has the options of the service, of its traffic and of its access log.
"""

import json
import os
from typing import Any

import bentoml
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.plain_engine import decode, open_engine, top5

SETTINGS: dict[str, dict[str, Any]] = json.loads(os.environ["BENCH_SETTINGS"])

app = Starlette()


@bentoml.service(traffic=SETTINGS["traffic"], logging={"access": SETTINGS["logging.access"]}, **SETTINGS["service"])
@bentoml.asgi_app(app)
class Classifier:
    def __init__(self) -> None:
        engine = open_engine()

        async def classify(request: Request) -> Response:
            logits = engine.run(decode(await request.body()))[0]
            return Response(orjson.dumps({"top5": top5(logits)}), media_type="application/json")

        app.router.routes.append(Route("/classify", classify, methods=["POST"]))
