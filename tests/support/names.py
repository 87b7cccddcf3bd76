"""Names where real collections have them: headers, sidecars, tables, XML."""

import csv
import gzip
import io
import json
from pathlib import Path

import nibabel as nib


class Names:
    """Writes names where real collections have them: in the text of headers, sidecars, tables and XML.

    Each place has a name of its own in `places`, so that whoever finds one knows where it came from.
    """

    def __init__(self) -> None:
        self.places: dict[str, str] = {}

    def at(self, place: str) -> str:
        return self.places.setdefault(place, f"ROE{len(self.places):03d}JANE")

    def in_header(self, path: Path) -> None:
        """Fill the text fields and add extensions; a file whose header cannot be read stays as it is."""
        packed = path.name.endswith(".gz")
        content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        kind = {348: nib.Nifti1Header, 540: nib.Nifti2Header}.get(
            min(int.from_bytes(content[:4], order) for order in ("little", "big"))
        )
        if kind is None:
            return
        header = kind.from_fileobj(io.BytesIO(content), check=False)
        voxels = content[int(header["vox_offset"]) :]
        for field in ("descrip", "db_name", "aux_file", "intent_name"):
            if field in header.keys():  # noqa: SIM118 - a header is not iterable
                header[field] = self.at(f"header: {field}").encode()
        for code in (2, 4, 6, 32):
            name = self.at(f"header: extension {code}").encode()
            header.extensions.append(nib.nifti1.Nifti1Extension(code, b"PatientName " + name))
        header["vox_offset"] = header.sizeof_hdr + 4 + header.extensions.get_sizeondisk()
        with io.BytesIO() as stream:
            header.write_to(stream)
            content = stream.getvalue() + voxels
        path.write_bytes(gzip.compress(content, 1, mtime=0) if packed else content)

    def in_sidecar(self, path: Path) -> None:
        fields = (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "ImageComments",
            "StudyDescription",
            "SeriesDescription",
        )
        document = json.loads(path.read_text(encoding="utf-8"))
        document |= {name: self.at(f"sidecar: {name}") for name in fields}
        path.write_text(json.dumps(document), encoding="utf-8")

    def in_table(self, path: Path) -> None:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, delimiter=delimiter)
        columns = ("name", "birth_date", "comments")
        added = [self.at(f"{path.name.rpartition('_')[2]}: {name}") for name in columns]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows(
                [[*header, *columns], *([*row, *added] for row in rows)]
            )

    def in_xml(self, image: Path, subject: str) -> None:
        """Write the archive's XML beside an image, with more in it than is asked for."""
        name = (
            self.at("XML: patientName"),
            self.at("XML: comment"),
            self.at("XML: attribute"),
            self.at("XML: text"),
        )
        image.with_suffix(".xml").write_text(
            f"""<?xml version="1.0" encoding="UTF-8"?>
<idaxs xmlns="http://ida.loni.usc.edu"><project xmlns="" operator="{name[2]}"><!-- {name[1]} -->
<subject><subjectIdentifier>{subject}</subjectIdentifier><patientName>{name[0]}</patientName>
<visit><note>{name[3]}</note></visit></subject></project></idaxs>
""",
            encoding="utf-8",
        )


def plant_names(raw: Path) -> dict[str, str]:
    """Write names all over a collection, and return them by place."""
    names = Names()
    for path in sorted(raw.rglob("*")):
        if path.name.startswith("._") or path.is_dir():
            continue
        if path.suffix in (".nii", ".gz"):
            names.in_header(path)
            if "ADNI" in path.parts:
                names.in_xml(path, path.relative_to(raw).parts[1])
        elif path.suffix in (".tsv", ".csv"):
            names.in_table(path)
        elif path.name.endswith("_pet.json"):
            names.in_sidecar(path)
    return names.places
