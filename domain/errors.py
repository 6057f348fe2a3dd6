"""Everything that can go wrong, in one tree.

* GatewayError
  - InstanceRejected            a peer sent something we cannot take
    - MalformedInstance         cannot be parsed, or a required attribute is missing or empty
    - InstanceMismatch          the request and the dataset, or the URL and the dataset, disagree
    - UnsupportedSopClass
    - ConflictingInstance       same SOP Instance UID, other content
  - AssemblyError               the slices do not form a volume (see ``domain.series.Refusal``)
  - DrawingRefused              a received drawing is no prompt: an answer, not a fault
  - InferenceError
    - NotApplicable             the engine looked and this series is not for it: an answer, not a fault
    - EngineUnavailable         retryable
    - EngineFailed
      - WeightsRefused          an engine's weights are missing, or not the ones that they must be
  - InstanceDamaged             a stored file is no longer what was received
  - ClaimLost                   another process has taken the step over
  - VerificationFailed          the encoded result is not what the engine found
  - StorageError
    - OutOfSpace                retryable
  - DeliveryError
    - PeerUnreachable           retryable
    - PeerOutOfResources        retryable
    - PeerRefused
      - ClassRefused            it takes no objects of this SOP class, or not in this transfer syntax
      - AlreadyThere            it holds an object of this SOP Instance UID
  - ConfigurationError

Domain errors know neither DIMSE status codes nor HTTP: each transport maps them (``scp.status``,
``dicomweb.problems``). Messages name attributes by keyword and never quote values, since a value may
identify a patient.
"""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """The gateway could not do what was asked."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])


class InstanceRejected(GatewayError):
    """The received SOP Instance cannot be accepted."""


class MalformedInstance(InstanceRejected):
    """A required attribute is missing, empty or cannot be decoded.

    ``attribute`` is the keyword at fault, where it is one. The UIDs are what could still be read before the fault,
    for an answer that names the instance; they appear in no message.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        attribute: str | None = None,
        sop_class_uid: str | None = None,
        sop_instance_uid: str | None = None,
        study_instance_uid: str | None = None,
    ) -> None:
        super().__init__(message)
        self.attribute = attribute
        self.sop_class_uid = sop_class_uid
        self.sop_instance_uid = sop_instance_uid
        self.study_instance_uid = study_instance_uid


class InstanceMismatch(InstanceRejected):
    """The request names another SOP Class, SOP Instance or Study than the dataset."""


class UnsupportedSopClass(InstanceRejected):
    """Instances of this SOP Class are not taken."""


class ConflictingInstance(InstanceRejected):
    """An instance with the same SOP Instance UID and other content is stored; the first copy is kept."""


class AssemblyError(GatewayError):
    """The instances do not form a regular volume.

    ``code`` is one of ``domain.series.RefusalCode``; ``instance_numbers`` name the offending instances
    (InstanceNumber, PS3.3 C.7.6.1.1.3), which identify nobody.
    """

    def __init__(self, code: str, message: str, instance_numbers: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.instance_numbers = instance_numbers


class InferenceError(GatewayError):
    """The engine gave no findings."""


class NotApplicable(InferenceError):
    """The engine examined the series and it is not for it; the message says why."""


class EngineUnavailable(InferenceError):
    """Out of memory, or the device is gone; another attempt may succeed."""

    retryable = True


class EngineFailed(InferenceError):
    """The engine cannot handle this series."""


class WeightsRefused(EngineFailed):
    """The weights of an engine are missing, or not the ones that they must be."""


class InstanceDamaged(GatewayError):
    """A stored file no longer holds what was received."""


class ClaimLost(GatewayError):
    """Another process has taken this step over; what this one still does counts for nothing."""


class VerificationFailed(GatewayError):
    """The encoded result, decoded again, differs from the engine's output; it is not sent."""


class StorageError(GatewayError):
    """The instance could not be kept on disk."""

    retryable = True


class OutOfSpace(StorageError):
    """The store has reached its low-water mark; nothing was stored."""


class DeliveryError(GatewayError):
    """The destination did not take the result."""


class PeerUnreachable(DeliveryError):
    """No association or connection, or it broke before the answer."""

    retryable = True


class PeerOutOfResources(DeliveryError):
    """The destination answered that it is out of resources."""

    retryable = True


class PeerRefused(DeliveryError):
    """The destination refused the object for good."""


class ClassRefused(PeerRefused):
    """The destination takes no objects of this SOP class, or not in this transfer syntax."""


class AlreadyThere(PeerRefused):
    """The destination refused the object because it holds one of the same SOP Instance UID."""


class ConfigurationError(GatewayError):
    """The configuration is faulty; the message lists every fault with its path."""


class DrawingRefused(GatewayError):
    """A received drawing cannot be used as a prompt; the message says why."""
