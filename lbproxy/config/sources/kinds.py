"""Every kind of source there is, told apart by `type`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lbproxy.config.sources.etcd import EtcdSource
from lbproxy.config.sources.file import FileSource
from lbproxy.config.sources.http import HttpSource
from lbproxy.config.sources.kubernetes import KubernetesSource

AnySource = Annotated[
    EtcdSource | FileSource | HttpSource | KubernetesSource,
    Field(discriminator="type"),
]
