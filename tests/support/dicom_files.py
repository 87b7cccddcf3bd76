"""Write synthetic DICOM: PET as scanners store it, a file a slice or one file of many frames."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

DIRECTORY = "1.2.840.10008.1.3.10"
PET, ENHANCED_PET, CT = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("128", "130", "2"))
# What must never leave the files.
NAMES = PATIENT, IDENTITY, BORN, DATE = "DOE^JANE", "HOSPITAL-4711", "19450102", "20210810"
FDG = ("C-B1031", "SRT", "Fluorodeoxyglucose F^18^")


def write_series(
    folder: Path,
    volume,
    *,
    seconds=(600,),
    start=1800,
    modality="PT",
    series=3,
    tracer=FDG,
    corrections=("ATTN", "SCAT", "DECY", "NORM"),
    syntax=ExplicitVRLittleEndian,
    enhanced=False,
    suffix=".dcm",
    prefix="DOE_JANE",
    preamble=True,
) -> Path:
    """Write a volume, its frames lasting `seconds` from `start` after injection, each twice as bright as the last."""
    folder.mkdir(parents=True, exist_ok=True)
    stored, slope = encoded(volume)
    # One study for the folders that lie in one folder.
    uids = [generate_uid(entropy_srcs=[str(part)]) for part in (folder.parent, f"{folder} {series}")]
    slices = [(frame, k) for frame in range(len(seconds)) for k in range(stored.shape[2])]
    for number, (frame, k) in enumerate(slices[: 1 if enhanced else None], 1):
        dataset = common(
            modality, series=series, uids=uids, tracer=tracer, corrections=corrections, enhanced=enhanced
        )
        dataset.InstanceNumber, dataset.SOPInstanceUID = (
            number,
            generate_uid(entropy_srcs=[uids[1], str(number)]),
        )
        dataset.Rows, dataset.Columns = stored.shape[1], stored.shape[0]
        places = [placed(volume.affine, at) for _, at in slices] if enhanced else [placed(volume.affine, k)]
        if enhanced:
            dataset.NumberOfFrames = len(slices)
            dataset.SharedFunctionalGroupsSequence = Sequence([measured(volume.affine, slope)])
            dataset.PerFrameFunctionalGroupsSequence = Sequence(
                [group(place, order) for order, place in enumerate(places, 1)]
            )
            pixels = np.stack([stored[:, :, at].T for _, at in slices])
        else:
            dataset.update(places[0])
            dataset.update(spacing(volume.affine))
            dataset.RescaleSlope, dataset.RescaleIntercept = f"{slope * 2**frame:.9g}", "0"
            dataset.NumberOfSlices, dataset.ImageIndex = stored.shape[2], number
            dataset.SeriesType = ["DYNAMIC" if len(seconds) > 1 else "STATIC", "IMAGE"]
            if len(seconds) > 1:
                dataset.NumberOfTimeSlices = len(seconds)
            since = sum(seconds[:frame])
            dataset.FrameReferenceTime = str(1000 * (since + seconds[frame] / 2))
            dataset.ActualFrameDuration = str(1000 * seconds[frame])
            dataset.AcquisitionTime = clock(start + since)
            pixels = stored[:, :, k].T
        finish(dataset, pixels, syntax)
        file = folder / f"{prefix}_{number:04d}{suffix}"
        little, implicit = syntax.is_little_endian, syntax.is_implicit_VR
        if not preamble:
            del dataset.file_meta
        dataset.save_as(file, enforce_file_format=preamble, little_endian=little, implicit_vr=implicit)
    return folder


def encoded(volume):
    """Return a volume's voxels as int16, and the slope as DICOM's decimal string keeps it."""
    slope = float(f"{float(volume.data.max()) / 32000:.9g}")
    return np.round(volume.data / slope).astype(np.int16), slope


def common(modality, *, series, uids, tracer, corrections, enhanced):
    dataset = Dataset()
    kind = CT if modality == "CT" else ENHANCED_PET if enhanced else PET
    dataset.SOPClassUID, dataset.Modality, dataset.ImageType = kind, modality, ["ORIGINAL", "PRIMARY"]
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uids
    dataset.FrameOfReferenceUID = uids[0]
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = PATIENT, IDENTITY, BORN
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = DATE
    dataset.StudyTime, dataset.SeriesTime, dataset.AcquisitionTime = clock(0), clock(1800), clock(1800)
    dataset.Manufacturer, dataset.ManufacturerModelName = "SIEMENS", "Biograph64"
    dataset.InstitutionName, dataset.SeriesDescription = "St Elsewhere", "PET brain"
    dataset.SeriesNumber, dataset.StudyID, dataset.AccessionNumber = series, "1", IDENTITY
    if modality == "PT":
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = tracer
        drug = Dataset()
        drug.Radiopharmaceutical, drug.RadiopharmaceuticalStartTime = tracer[2], clock(0)
        drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = "185000000", "6586.2"
        drug.RadiopharmaceuticalCodeSequence = Sequence([code])
        dataset.RadiopharmaceuticalInformationSequence = Sequence([drug])
        dataset.Units, dataset.DecayCorrection, dataset.CountsSource = "BQML", "START", "EMISSION"
        dataset.CorrectedImage = list(corrections)
        if "ATTN" in corrections:
            dataset.AttenuationCorrectionMethod = "measured,CT"
    return dataset


def placed(affine, k):
    """Return where slice k lies, in DICOM's LPS."""
    place = Dataset()
    flip = np.array([-1, -1, 1])
    axes = (affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)).T * flip
    place.ImageOrientationPatient = [f"{value:.9g}" for value in axes.ravel()]
    place.ImagePositionPatient = [f"{value:.9g}" for value in (affine @ [0, 0, k, 1])[:3] * flip]
    return place


def spacing(affine):
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    found = Dataset()
    found.PixelSpacing, found.SliceThickness = [f"{edges[1]:.9g}", f"{edges[0]:.9g}"], f"{edges[2]:.9g}"
    return found


def measured(affine, slope):
    shared, values = Dataset(), Dataset()
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = f"{slope:.9g}", "0", "US"
    shared.PixelMeasuresSequence = Sequence([spacing(affine)])
    shared.PixelValueTransformationSequence = Sequence([values])
    return shared


def group(place, order):
    own, content, position, turn = Dataset(), Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = place.ImagePositionPatient
    turn.ImageOrientationPatient = place.ImageOrientationPatient
    content.InStackPositionNumber, content.StackID, content.DimensionIndexValues = order, "1", [1, order]
    content.FrameReferenceDateTime, content.FrameAcquisitionDuration = "20210810103000", 600000.0
    own.FrameContentSequence, own.PlanePositionSequence = Sequence([content]), Sequence([position])
    own.PlaneOrientationSequence = Sequence([turn])
    return own


def finish(dataset, pixels, syntax):
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    meta = dataset.file_meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stored = pixels.astype("<u2" if syntax.is_little_endian else ">u2")
    if syntax == JPEG2000Lossless:
        dataset.PixelData = encapsulate([jpeg2000(frame) for frame in stored.reshape(-1, *stored.shape[-2:])])
        return
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    if syntax.is_compressed:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax, generate_instance_uid=False)


def jpeg2000(pixels):
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "JPEG2000", no_jp2=True, irreversible=False)
    return packed.getvalue()


def write_directory(path):
    """Write a directory of files (DICOMDIR), which holds no image."""
    record, dataset = Dataset(), Dataset()
    record.DirectoryRecordType, record.Modality = "SERIES", "PT"
    dataset.DirectoryRecordSequence = Sequence([record])
    dataset.SOPClassUID, dataset.SOPInstanceUID = DIRECTORY, generate_uid()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.TransferSyntaxUID = (
        DIRECTORY,
        ExplicitVRLittleEndian,
    )
    dataset.save_as(path, enforce_file_format=True)


def clock(seconds):
    """Return DICOM's time of day, `seconds` after the injection at ten o'clock."""
    hours, rest = divmod(36_000 + int(seconds), 3600)
    return f"{hours:02d}{rest // 60:02d}{rest % 60:02d}.000000"
