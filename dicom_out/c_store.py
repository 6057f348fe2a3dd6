"""One C-STORE request whose dataset is the file's, byte for byte."""

from __future__ import annotations

import time

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from dicom_out.outgoing import Outgoing

_MEDIUM = 0  # Priority (PS3.7 9.1.1.1.6)


def send_file(association: Association, item: Outgoing) -> Dataset:
    """Send ``item`` and return the elements of the response's status, empty when there was no response.

    Where the peer accepted the file's own transfer syntax its bytes are sent as they are: what a library would
    repair on the way (wrong VRs, truncated pixels) is the receiver's to judge. Otherwise the dataset is encoded anew
    in the accepted one, which is uncompressed.

    Raises
    ------
    RuntimeError
        The association has ended.
    """
    for context in association.accepted_contexts:
        if (context.abstract_syntax, context.transfer_syntax[0]) == (item.sop_class_uid, item.transfer_syntax_uid):
            return _send_as_it_is(association, item, context.context_id or 0)
    return association.send_c_store(dcmread(item.path), priority=_MEDIUM)


def _send_as_it_is(association: Association, item: Outgoing, context_id: int) -> Dataset:
    """Do what ``Association.send_c_store`` does for a path, which it does only where a global switch is set.

    The names that begin with an underscore are pynetdicom 3.0.4's, which the lock pins.
    """
    request = C_STORE()
    request.MessageID = 1
    request.Priority = _MEDIUM
    request.AffectedSOPClassUID = UID(item.sop_class_uid)
    request.AffectedSOPInstanceUID = UID(item.sop_instance_uid)
    request._dataset_path = (item.path, item.dataset_offset)
    # The association's own thread must not take the response away
    association._reactor_checkpoint.clear()
    try:
        while not association._is_paused:
            if not association.is_established:
                raise RuntimeError("the association has ended")
            time.sleep(0.0001)
        association.dimse.send_msg(request, context_id)
        _, response = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    if response is None:
        association._handle_no_response()
        return Dataset()
    return association._check_received_status(response)
