"""Write synthetic DICOM: PET as scanners store it, a file a slice or one file of many frames."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

DIRECTORY = "1.2.840.10008.1.3.10"
CT, PET, ENHANCED_PET = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "128", "130"))
# What must never leave the files.
NAMES = PATIENT, IDENTITY, BORN, DATE = "DOE^JANE", "HOSPITAL-4711", "19450102", "20210810"
FDG = ("C-B1031", "SRT", "Fluorodeoxyglucose F^18^")
CORRECTED = ("ATTN", "SCAT", "DECY", "NORM")


def write_series(
    folder: Path, volume, *, seconds=(600,), start=1800, syntax=ExplicitVRLittleEndian, enhanced=False,
    preamble=True, name="DOE_JANE_{:04d}.dcm", series=3, **facts,
) -> Path:  # fmt: skip
    """Write a volume; its frames last `seconds` from `start` after injection, each brighter by a tenth of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    stored, slope = encoded(volume)
    # One study for the folders that lie in one folder.
    uids = [generate_uid(entropy_srcs=[str(part)]) for part in (folder.parent, f"{folder} {series}")]
    slices = [(frame, k) for frame in range(len(seconds)) for k in range(stored.shape[2])]
    for number, (frame, k) in enumerate(slices[:1] if enhanced else slices, 1):
        dataset = common(uids, series, **facts)
        fill(
            dataset, SOPInstanceUID=generate_uid(entropy_srcs=[uids[1], str(number)]), InstanceNumber=number,
            Rows=stored.shape[1], Columns=stored.shape[0],
        )  # fmt: skip
        if enhanced:
            own = [placed(volume.affine, at) for _, at in slices]
            scale = fill(Dataset(), RescaleSlope=f"{slope:.9g}", RescaleIntercept="0", RescaleType="US")
            shared = fill(
                Dataset(), PixelMeasuresSequence=[fill(Dataset(), **spacing(volume.affine))],
                PixelValueTransformationSequence=[scale],
            )  # fmt: skip
            fill(
                dataset, SOPClassUID=ENHANCED_PET, NumberOfFrames=len(slices),
                SharedFunctionalGroupsSequence=[shared],
                PerFrameFunctionalGroupsSequence=[group(place, order) for order, place in enumerate(own, 1)],
            )  # fmt: skip
            pixels = np.stack([stored[:, :, at].T for _, at in slices])
        else:
            since = sum(seconds[:frame])
            fill(
                dataset, **placed(volume.affine, k), **spacing(volume.affine), RescaleIntercept="0",
                RescaleSlope=f"{slope * (1 + frame / 10):.9g}", NumberOfSlices=stored.shape[2], ImageIndex=number,
                SeriesType=["DYNAMIC" if len(seconds) > 1 else "STATIC", "IMAGE"],
                FrameReferenceTime=str(1000 * (since + seconds[frame] / 2)), NumberOfTimeSlices=len(seconds),
                ActualFrameDuration=str(1000 * seconds[frame]), AcquisitionTime=clock(start + since),
            )  # fmt: skip
            pixels = stored[:, :, k].T
        add_pixels(dataset, pixels, syntax)
        if not preamble:
            del dataset.file_meta
        order = {"little_endian": syntax.is_little_endian, "implicit_vr": syntax.is_implicit_VR}
        dataset.save_as(folder / name.format(number), enforce_file_format=preamble, **order)
    return folder


def write_directory(path):
    """Write a directory of files (DICOMDIR), which holds no image."""
    records = [fill(Dataset(), DirectoryRecordType="SERIES", Modality="PT")]
    dataset = fill(Dataset(), DirectoryRecordSequence=records, SOPClassUID=DIRECTORY, SOPInstanceUID="1.2")
    dataset.file_meta = FileMetaDataset()
    fill(dataset.file_meta, MediaStorageSOPClassUID=DIRECTORY, TransferSyntaxUID=ExplicitVRLittleEndian)
    dataset.save_as(path, enforce_file_format=True)


def encoded(volume):
    """Return a volume's voxels as int16, and the slope as DICOM's decimal string keeps it."""
    slope = float(f"{float(volume.data.max()) / 32000:.9g}")
    return np.round(volume.data / slope).astype(np.int16), slope


def fill(dataset, **values):
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def common(
    uids, series, *, modality="PT", tracer=FDG, corrections=CORRECTED, drug=None, method="measured,CT",
    half_life="6586.2", description="PET brain",
):  # fmt: skip
    dataset = fill(
        Dataset(), SOPClassUID=CT if modality == "CT" else PET, Modality=modality, SeriesNumber=series,
        ImageType=["ORIGINAL", "PRIMARY"], StudyInstanceUID=uids[0], SeriesInstanceUID=uids[1],
        FrameOfReferenceUID=uids[0], PatientName=PATIENT, PatientID=IDENTITY, PatientBirthDate=BORN,
        AccessionNumber=IDENTITY, InstitutionName="St Elsewhere", SeriesDescription=description,
        StudyDate=DATE, SeriesDate=DATE, AcquisitionDate=DATE, StudyTime=clock(0), SeriesTime=clock(0),
        AcquisitionTime=clock(1800), Manufacturer="SIEMENS", ManufacturerModelName="Biograph64",
    )  # fmt: skip
    if modality != "PT":
        return dataset
    names = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    given = fill(
        Dataset(), Radiopharmaceutical=drug or tracer[2], RadiopharmaceuticalStartTime=clock(0),
        RadionuclideTotalDose="185000000", RadionuclideHalfLife=half_life,
        RadiopharmaceuticalCodeSequence=[fill(Dataset(), **dict(zip(names, tracer, strict=True)))],
    )  # fmt: skip
    how = {"AttenuationCorrectionMethod": method} if "ATTN" in corrections or method != "measured,CT" else {}
    return fill(
        dataset, RadiopharmaceuticalInformationSequence=[given], Units="BQML", DecayCorrection="START",
        CorrectedImage=list(corrections), **how,
    )  # fmt: skip


def placed(affine, k):
    """Return where slice k lies, in DICOM's LPS."""
    flip = np.array([-1, -1, 1])
    axes = (affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)).T * flip
    corner = (affine @ [0, 0, k, 1])[:3] * flip
    texts = [[f"{value:.9g}" for value in values] for values in (axes.ravel(), corner)]
    return dict(zip(("ImageOrientationPatient", "ImagePositionPatient"), texts, strict=True))


def spacing(affine):
    column, row, slices = (f"{edge:.9g}" for edge in np.linalg.norm(affine[:3, :3], axis=0))
    return {"PixelSpacing": [row, column], "SliceThickness": slices}


def group(place, order):
    turn, corner = ({name: place[name]} for name in place)
    return fill(
        Dataset(), PlaneOrientationSequence=[fill(Dataset(), **turn)],
        PlanePositionSequence=[fill(Dataset(), **corner)],
        FrameContentSequence=[fill(Dataset(), InStackPositionNumber=order, StackID="1")],
    )  # fmt: skip


def add_pixels(dataset, pixels, syntax):
    fill(
        dataset, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", BitsAllocated=16, BitsStored=16,
        HighBit=15, PixelRepresentation=0, file_meta=FileMetaDataset(),
    )  # fmt: skip
    dataset.file_meta.TransferSyntaxUID = syntax
    stored = pixels.astype("<u2" if syntax.is_little_endian else ">u2")
    if syntax == JPEG2000Lossless:  # pydicom encodes it with a further package, Pillow without
        dataset.PixelData = encapsulate([jpeg2000(frame) for frame in stored.reshape(-1, *stored.shape[-2:])])
        return
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    if syntax.is_compressed:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax, generate_instance_uid=False)


def jpeg2000(pixels):
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "JPEG2000", no_jp2=True, irreversible=False)
    return packed.getvalue()


def clock(seconds):
    """Return DICOM's time of day, `seconds` after the injection at ten o'clock."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{10 + minutes // 60:02d}{minutes % 60:02d}{rest:02d}.000000"
