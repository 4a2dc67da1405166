"""All services of an agent, as the front doors get them."""

from dataclasses import dataclass

from netagent.services.attachments import AttachmentService
from netagent.services.collection import CollectionService
from netagent.services.connections import ConnectionService
from netagent.services.containers import ContainerService
from netagent.services.copying import CopyService
from netagent.services.events import EventBus
from netagent.services.exposure import ExposureService
from netagent.services.host_blocks import HostBlockService
from netagent.services.hosts import HostService
from netagent.services.info import InfoService
from netagent.services.limits import LimitService
from netagent.services.membership import MembershipService
from netagent.services.network_removal import NetworkRemovalService
from netagent.services.networks import NetworkService
from netagent.services.publishing import PublishingService
from netagent.services.readiness import ReadinessService
from netagent.services.rebuilding import RebuildingService
from netagent.services.resolving import ResolvingService
from netagent.services.stats import StatsService
from netagent.services.verification import VerificationService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What ``api`` works with."""

    networks: NetworkService
    network_removal: NetworkRemovalService
    containers: ContainerService
    attachments: AttachmentService
    connections: ConnectionService
    publishing: PublishingService
    limits: LimitService
    stats: StatsService
    hosts: HostService
    host_blocks: HostBlockService
    events: EventBus
    info: InfoService
    exposure: ExposureService
    verification: VerificationService
    collection: CollectionService
    readiness: ReadinessService
    resolving: ResolvingService
    membership: MembershipService
    copying: CopyService
    rebuilding: RebuildingService
