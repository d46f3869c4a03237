"""Answers every request with the instance that served it."""

import os
import platform

from flask import Flask, jsonify

app = Flask(__name__)


@app.get("/", defaults={"path": ""})
@app.get("/<path:path>")
def instance(path):
    return jsonify(
        app="python",
        instance=int(os.environ.get("CF_INSTANCE_INDEX", "0")),
        greeting=os.environ.get("GREETING"),
        runtime=platform.python_version(),
    )
