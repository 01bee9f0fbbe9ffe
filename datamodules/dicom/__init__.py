"""Reader of real-world CT in DICOM: a folder of files in, a `Volume` in HU or a countable `Reason` out."""

from datamodules.dicom.decoder import Decoder
from datamodules.dicom.remarks import Remark
from datamodules.dicom.series import read_series
from datamodules.dicom.volume import Reason, Unreadable, Volume

__all__ = ["Decoder", "Reason", "Remark", "Unreadable", "Volume", "read_series"]
