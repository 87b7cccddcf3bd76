"""Tiny scans and whole tiny collections of them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

RAS = np.diag([4.0, 4.0, 4.0, 1.0])


def save_scan(path, seed=0, *, affine=RAS, frames=None):
    """Write a NIfTI whose content differs by `seed`."""
    shape = (8, 9, 10) if frames is None else (8, 9, 10, frames)
    data = np.random.default_rng(seed).random(shape, dtype=np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


class BidsTree:
    """A BIDS-PET dataset that grows scan by scan."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.participants("participant_id\tage\tsex\tdiagnosis\tsite\n")
        self.json("pet.json", TracerName="FDG")

    def participants(self, text, *, encoding="utf-8"):
        (self.root / "participants.tsv").write_text(text, encoding=encoding)

    def person(self, label, diagnosis, age="70", sex="F", site="A"):
        with (self.root / "participants.tsv").open("a", encoding="utf-8") as file:
            file.write(f"sub-{label}\t{age}\t{sex}\t{diagnosis}\t{site}\n")

    def json(self, name, **content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")

    def scan(self, name, seed=0, **options):
        entities = dict(part.split("-", 1) for part in name.split("_")[:-1])
        folder = self.root / f"sub-{entities['sub']}"
        if "ses" in entities:
            folder = folder / f"ses-{entities['ses']}"
        return save_scan(folder / "pet" / name, seed, **options)


ADNI_HEADER = (
    '"Image Data ID","Subject","Group","Sex","Age","Visit","Modality","Description","Type","Acq Date",'
    '"Format","Downloaded"\n'
)
UNIFORM = "Coreg, Avg, Std Img and Vox Siz, Uniform Resolution"


class AdniTree:
    """An ADNI download with its collection CSV that grows image by image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.table = root / "FDG_1_02_2024.csv"
        root.mkdir()
        self.table.write_text(ADNI_HEADER, encoding="utf-8")

    def row(
        self, image, subject, group="AD", *, visit="2", date="8/10/2021", description=UNIFORM, modality="PET",
        age="75", sex="F",
    ):  # fmt: skip
        cells = (image, subject, group, sex, age, visit, modality, description, "", date, "NiFTI", "")
        with self.table.open("a", encoding="utf-8") as file:
            file.write(",".join(f'"{cell}"' for cell in cells) + "\n")

    def file(
        self, image, subject, *, date="2021-08-10", description=UNIFORM, leaf=None, name=None, seed=None
    ):
        number = image.lstrip("I")
        described = description.replace(" ", "_").replace(":", "_")
        name = name or f"ADNI_{subject}_PT_{described}_Br_20211123101010123_S1072345_I{number}.nii"
        folder = self.root / "ADNI" / subject / described / f"{date}_10_15_20.0" / (leaf or f"I{number}")
        return save_scan(folder / name, int(number) if seed is None else seed)

    def xml(self, images, subject, group="AD", *, visit="ADNI2 Year 1 Visit", date="2021-08-10 10:15:20.0",
        modality="PET", tracer="18F-FDG", description=UNIFORM, original=False, name=None, folder="ADNI",
    ):  # fmt: skip
        """Write metadata of one series as the archive does; `images` are numbers."""
        kind, label = (
            ("imagingProtocol", "description") if original else ("derivedProduct", "processedDataLabel")
        )
        products = "".join(
            f"<{kind}><imageUID>{image}</imageUID><{label}>{description}</{label}></{kind}>"
            for image in images
        )
        term = f'<protocolTerm><protocol term="Radiopharmaceutical">{tracer}</protocol></protocolTerm>'
        related = f"<relatedImageDetail><imageUID>99</imageUID>{term}</relatedImageDetail>"
        level = products + related if original else f"<seriesLevelMeta>{products}{related}</seriesLevelMeta>"
        path = self.root / folder / (name or f"ADNI_{subject}_Coreg_S1072345_I{images[0]}.xml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"""<?xml version="1.0" encoding="UTF-8"?>
<idaxs xmlns="http://ida.loni.usc.edu"><project xmlns=""><projectIdentifier>ADNI</projectIdentifier><subject>
<subjectIdentifier>{subject}</subjectIdentifier><researchGroup>{group}</researchGroup><subjectSex>F</subjectSex>
<visit><visitIdentifier>{visit}</visitIdentifier></visit><study><subjectAge>75.38</subjectAge><series>
<modality>{modality}</modality><dateAcquired>{date}</dateAcquired>{level}</series></study></subject></project></idaxs>""",
            encoding="utf-8",
        )
        return path

    def image(
        self, image, subject, group="AD", *, visit="2", date="2021-08-10", description=UNIFORM, **options
    ):
        year, month, day = date.split("-")
        shown = f"{int(month)}/{int(day)}/{year}"
        self.row(image, subject, group, visit=visit, date=shown, description=description)
        return self.file(image, subject, date=date, description=description, **options)


@pytest.fixture
def scan_file():
    return save_scan


@pytest.fixture
def bids_tree(tmp_path):
    return BidsTree(tmp_path / "dataset")


@pytest.fixture
def adni_tree(tmp_path):
    return AdniTree(tmp_path / "download")


class FlatFolder:
    """A flat folder that grows row by row; one sound scan of each diagnosis is there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        (root / "scans.csv").write_text("path,subject,session,diagnosis\n", encoding="utf-8")
        self.sound("ad.nii", "1", "AD", seed=1)
        self.sound("cn.nii.gz", "2", "CN", seed=2)

    def row(self, path, subject="specimen", diagnosis="AD", session="1"):
        """Add a row and return the path that it names."""
        with (self.root / "scans.csv").open("a", encoding="utf-8") as file:
            file.write(f'"{path}",{subject},{session},{diagnosis}\n')
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        return self.root / path

    def sound(self, path, subject, diagnosis, session="1", **options):
        return save_scan(self.row(path, subject, diagnosis, session), **options)


@pytest.fixture
def flat(tmp_path):
    return FlatFolder(tmp_path / "collection")
