"""Configuration section for `dictalake review`: who may look into the transcripts, and from where."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from dictalake.config.section import Section

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Review(Section):
    """The pages on which people hear, check and correct transcripts."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address that the pages are served at; any other than 127.0.0.1 needs review.users and a certificate",
    )
    port: int = Field(0, ge=0, le=65535, description="port of the pages; 0 takes a free one")
    names: tuple[str, ...] = Field(
        (), description="names under which browsers reach the pages, such as review.hospital.example; review.host is one"
    )
    tls_cert: str | None = Field(None, description="file with the certificate of the server, PEM")
    tls_key: str | None = Field(None, description="file with its private key, PEM")
    users: str | None = Field(
        None, description="file with a line NAME:HASH for each person who may log in; `dictalake review --add-user` writes it"
    )
    user: str | None = Field(
        None, min_length=1, max_length=64, description="your name on corrections without review.users; default: your login"
    )
    access_log: bool = Field(True, description="write into the lake who opened which recording; false: keep no such record")
    sound_mb: float = Field(512.0, ge=16, description="megabytes of memory for sound; the sound heard last stays there")
    claim_min: float = Field(
        30.0, gt=0, description="minutes for which a recording from the queue is kept for the person who got it"
    )

    @field_validator("names", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("tls_cert", "tls_key", "users")
    @classmethod
    def _is_there(cls, value: str | None) -> str | None:
        if value is not None and not Path(value).is_file():
            raise ValueError("there is no such file")
        return value

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach the pages."""
        return self.host in LOOPBACK
