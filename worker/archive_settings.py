"""The settings of the archive: where it is, and the keys to it under the names that the vendors' own tools read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from worker.object_store.address import StoreAddress, parse_address
from worker.object_store.store_keys import StoreKeys

_ENDPOINT: Final = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._/-]*)?")


class ArchiveSettings(BaseSettings):
    """The part of `Settings` that concerns the archive."""

    archive: str | None = None
    audit_redis_ttl: Annotated[int, Field(ge=60)] = 7 * 86_400
    aws_access_key_id: str | None = Field(None, validation_alias="AWS_ACCESS_KEY_ID")
    aws_secret_access_key: SecretStr | None = Field(None, validation_alias="AWS_SECRET_ACCESS_KEY")
    aws_session_token: SecretStr | None = Field(None, validation_alias="AWS_SESSION_TOKEN")
    aws_region: str | None = Field(None, validation_alias="AWS_REGION")
    aws_endpoint_url: str | None = Field(None, validation_alias="AWS_ENDPOINT_URL")
    google_application_credentials: Path | None = Field(None, validation_alias="GOOGLE_APPLICATION_CREDENTIALS")
    azure_storage_account_name: str | None = Field(None, validation_alias="AZURE_STORAGE_ACCOUNT_NAME")
    azure_storage_account_key: SecretStr | None = Field(None, validation_alias="AZURE_STORAGE_ACCOUNT_KEY")

    @field_validator("archive")
    @classmethod
    def _archive(cls, value: str | None) -> str | None:
        return value if value is None else str(parse_address(value))

    @field_validator("aws_endpoint_url")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if value is not None and _ENDPOINT.fullmatch(value) is None:
            raise ValueError("must be an http:// or https:// address without a user, such as https://s3.example")
        return value

    @property
    def archive_address(self) -> StoreAddress | None:
        """Return where the archive is, or None without one."""
        return parse_address(self.archive) if self.archive is not None else None

    @property
    def archive_keys(self) -> StoreKeys:
        """Return the keys to it that are set."""
        credentials = self.google_application_credentials
        return StoreKeys(
            s3={
                "access_key_id": self.aws_access_key_id or "",
                "secret_access_key": _text(self.aws_secret_access_key),
                "session_token": _text(self.aws_session_token),
                "region": self.aws_region or "",
                "endpoint": self.aws_endpoint_url or "",
            },
            gs={"application_credentials": str(credentials) if credentials is not None else ""},
            az={
                "account_name": self.azure_storage_account_name or "",
                "account_key": _text(self.azure_storage_account_key),
            },
        )


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""
