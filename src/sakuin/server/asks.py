"""What routes are given: the service, and who asks. Called by `sakuin.server.routes`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from sakuin.server.guard import request_id
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


def audited(
    service: Service,
    event: str,
    tenant: Tenant,
    context: str | None,
    question: str | None = None,
    **facts: Any,
) -> None:
    """Write down that a tenant did something. It may wait for the disk for a moment."""
    service.audit.write(event, tenant, context, request_id.get(), question=question, **facts)


The = Annotated[Service, Depends(service_of)]
Asker = Annotated[Tenant, Depends(tenant_of)]
