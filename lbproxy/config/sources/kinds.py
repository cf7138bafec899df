"""Every kind of source there is, told apart by `type`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lbproxy.config.sources.consul import ConsulSource
from lbproxy.config.sources.dns import DnsSource
from lbproxy.config.sources.etcd import EtcdSource
from lbproxy.config.sources.file import FileSource
from lbproxy.config.sources.http import HttpSource
from lbproxy.config.sources.kubernetes import KubernetesSource
from lbproxy.config.sources.push import PushSource
from lbproxy.config.sources.zookeeper import ZooKeeperSource

AnySource = Annotated[
    ConsulSource
    | DnsSource
    | EtcdSource
    | FileSource
    | HttpSource
    | KubernetesSource
    | PushSource
    | ZooKeeperSource,
    Field(discriminator="type"),
]
