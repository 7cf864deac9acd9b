"""What routes are given: the service, and who asks. Called by `sakuin.server.routes`."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from sakuin.server.service import Service
from sakuin.server.tenants.door import tenant_in
from sakuin.server.tenants.tenant import Tenant


def service_of(request: Request) -> Service:
    """The service of the app that a request came to."""
    service: Service = request.app.state.service
    return service


async def tenant_of(request: Request) -> Tenant:
    """Who asks, by the request's key."""
    return tenant_in(request.scope)


The = Annotated[Service, Depends(service_of)]
Asker = Annotated[Tenant, Depends(tenant_of)]
