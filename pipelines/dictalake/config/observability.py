"""Configuration sections for observing a run: Prometheus metrics, OpenLineage events, logs and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dictalake.config.section import Section


class Metrics(Section):
    """Where a run sends its numbers for Prometheus."""

    port: int | None = Field(
        None, ge=0, le=65535, description="port on which the driver of a run serves /metrics for Prometheus; none or 0: no port"
    )
    address: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address that this port is opened at; 127.0.0.1: for programs on the driver's machine alone, 0.0.0.0: for "
        "everybody who reaches the machine",
    )
    textfile: str | None = Field(
        None, description="file NAME.prom for the node exporter's textfile collector; written when a run ends"
    )
    pushgateway: str | None = Field(None, description="URL of a Prometheus Pushgateway; a run pushes when it ends")

    @field_validator("textfile")
    @classmethod
    def _is_collected(cls, value: str | None) -> str | None:
        if value is not None and not value.endswith(".prom"):
            raise ValueError("must end in .prom, the node exporter reads no other file")
        if value is not None and not Path(value).parent.is_dir():
            raise ValueError("is in a folder that does not exist; make it, or name the folder that the node exporter reads")
        return value

    @field_validator("pushgateway")
    @classmethod
    def _is_open_url(cls, value: str | None) -> str | None:
        what = "run the Pushgateway where only the cluster can reach it"
        return None if value is None else _require_open_url(value, "http://pushgateway:9091", what)


class Lineage(Section):
    """Where a run sends OpenLineage events, which say what it read, what it wrote and which code and model it ran."""

    kind: Literal["file", "http", "off"] = Field(
        "file", description="file: one file for each event below lineage/ of the lake; http: a server that takes OpenLineage"
    )
    server: str | None = Field(
        None, description="URL of the server for kind http, e.g. http://marquez:5000; its key is in OPENLINEAGE_API_KEY"
    )
    namespace: str = Field("dictalake", min_length=1, description="OpenLineage namespace of this installation's runs")

    @field_validator("server")
    @classmethod
    def _is_open_url(cls, value: str | None) -> str | None:
        what = "the key of the server is in the environment variable OPENLINEAGE_API_KEY"
        return None if value is None else _require_open_url(value, "http://marquez:5000", what)

    @field_validator("kind", mode="before")
    @classmethod
    def _is_word(cls, value: object) -> object:
        """YAML reads ``off`` as false."""
        return "off" if value is False else value

    @model_validator(mode="after")
    def _http_has_url(self) -> Lineage:
        if self.kind == "http" and self.server is None:
            raise ValueError("kind is http and server is missing: give lineage.server, such as http://marquez:5000")
        return self


def _require_open_url(value: str, example: str, instead: str) -> str:
    """Raises ValueError for anything but a web server's URL, and for a URL with a secret: the run record keeps it."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"must be a URL such as {example}")
    if parts.username or parts.password or parts.query:  # such a value may also reach a log
        raise ValueError(f"must hold no user name, password or query; {instead}")
    return value


class Logs(Section):
    """How a job logs what it does."""

    format: Literal["text", "json"] = Field("text", description="json: each line on stderr is one JSON object")
    file: str | None = Field(None, description="file that the same lines are appended to, in the same format")

    @field_validator("file")
    @classmethod
    def _has_folder(cls, value: str | None) -> str | None:
        if value is not None and not Path(value).parent.is_dir():
            raise ValueError("is in a folder that does not exist")
        return value


class Report(Section):
    """The HTML page that a run writes for people to read."""

    write: bool = Field(True, description="at the end of a run that did something, write reports/<run_id>.html into the lake")
    price_per_hour: float | None = Field(
        None, ge=0, description="price per hour of all machines of a run together; without it no cost is shown"
    )
    currency: str = Field("USD", min_length=1, description="currency of that price")
