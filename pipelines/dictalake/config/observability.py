"""Sections of the configuration about who is told what of a run: Prometheus, a catalogue of data, logs, the report."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dictalake.config.section import Section


class Metrics(Section):
    """Where the numbers of a run go, for Prometheus."""

    port: int | None = Field(
        None, ge=0, le=65535, description="port on which the driver of a run answers Prometheus at /metrics; none or 0: no port"
    )
    textfile: str | None = Field(
        None, description="file, NAME.prom, for the node exporter's textfile collector; written when a run ends"
    )
    pushgateway: str | None = Field(None, description="URL of a Prometheus Pushgateway, which is told when a run ends")

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
        what = "a Pushgateway stands where only the cluster reaches it"
        return None if value is None else _require_open_url(value, "http://pushgateway:9091", what)


class Lineage(Section):
    """Who is told what a run read, wrote and ran with, in events of OpenLineage."""

    kind: Literal["file", "http", "off"] = Field(
        "file", description="file: below lineage/ of the lake, a file an event; http: to a server that takes OpenLineage"
    )
    server: str | None = Field(
        None, description="the URL of the server of http, e.g. http://marquez:5000; its key is in OPENLINEAGE_API_KEY"
    )
    namespace: str = Field("dictalake", min_length=1, description="what the runs of this installation are gathered under there")

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
    """Raises ValueError for what is no URL of a web server, or holds a secret: it is kept in the run record."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"must be a URL such as {example}")
    if parts.username or parts.password or parts.query:  # and may be in a log
        raise ValueError(f"must hold no name, password or query; {instead}")
    return value


class Logs(Section):
    """How a job tells its operators what it does."""

    format: Literal["text", "json"] = Field("text", description="json: each line on stderr is one JSON object")
    file: str | None = Field(None, description="file to which the lines are appended too, in the same format")

    @field_validator("file")
    @classmethod
    def _has_folder(cls, value: str | None) -> str | None:
        if value is not None and not Path(value).parent.is_dir():
            raise ValueError("is in a folder that does not exist")
        return value


class Report(Section):
    """What a run leaves for people to read: one HTML page."""

    write: bool = Field(True, description="at the end of a run that did something, write reports/<run_id>.html into the lake")
    price_per_hour: float | None = Field(
        None, ge=0, description="what the machines of a run cost an hour, all together; without it no cost is shown"
    )
    currency: str = Field("USD", min_length=1, description="what that price is in")
