"""What the columns of a hospital's own CSV are called."""

from dataclasses import dataclass

# Tried in this order, in any case of letters.
GUESSES = {
    "image": ("image", "image_id", "file", "filename", "path"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id"),
    "labels": ("labels", "label", "finding", "findings"),
    "view": ("view", "view_position", "projection"),
    "sex": ("sex", "gender"),
    "age": ("age",),
    "source": ("source", "site", "institution"),
}


@dataclass(frozen=True)
class Columns:
    """Names of the CSV's columns; an empty one is guessed from `GUESSES`."""

    image: str = ""
    """Path below the source folder or the CSV's, or a file name; its ending may be missing."""
    patient: str = ""
    """Patient, unique in the hospital."""
    labels: str = ""
    """Findings, separated by "|" or ";". Blank: nobody labelled the image."""
    view: str = ""
    """PA, AP or lateral, in a few usual spellings."""
    sex: str = ""
    """F or M."""
    age: str = ""
    """Years."""
    source: str = ""
    """Site or collection that the image comes from, where the folder was put together from several."""
