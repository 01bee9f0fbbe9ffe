"""The machine-readable files of `flip site pack`: a CycloneDX list of components, and the folder's RO-Crate."""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import distributions
from uuid import NAMESPACE_URL, uuid5

CONTEXT = "https://w3id.org/ro/crate/1.1"
TYPES = {"html": "text/html", "csv": "text/csv", "json": "application/json"}
WORDS = {
    "index.html": "Controls, egress, privacy, risks and the output checker's checklist, to be read and printed",
    "egress.csv": "Every answer of the site in this run, by round, with its kind, size and digest",
    "components.cdx.json": "Installed software, CycloneDX 1.6",
    "manifest.json": "The study, as the site was asked",
}
TERMS = {
    "@id": "#terms",
    "@type": "CreativeWork",
    "name": "For the output checkers of this site",
    "description": "Not published; who may have it the site decides",
}
SITE = {"@id": "#site", "@type": "Organization", "name": "The site that wrote this folder"}


def components(version: str) -> str:
    """The installed distributions as a CycloneDX 1.6 document (ECMA-424)."""
    found = {each.metadata["Name"].lower(): each.version for each in distributions() if each.metadata["Name"]}
    listed = [
        {"type": "library", "bom-ref": purl, "name": name, "version": number, "purl": purl}
        for name, number in sorted(found.items())
        for purl in [f"pkg:pypi/{name.replace('_', '-')}@{number}"]
    ]
    about = {"type": "application", "bom-ref": "flip", "name": "flip-engine", "version": version}
    python = {"type": "platform", "bom-ref": "python", "name": "python", "version": platform.python_version()}
    content = {"metadata": {"component": about}, "components": [python, *listed]}
    serial = uuid5(NAMESPACE_URL, json.dumps(content, sort_keys=True))
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1}
    return json.dumps(head | content, indent=1) + "\n"


def crate(title: str, made: str, files: Mapping[str, str]) -> str:
    """The metadata of a folder of these files, RO-Crate 1.1: its descriptor, the folder, and each file."""
    parts = [
        {
            "@id": name,
            "@type": "File",
            "name": WORDS[name],
            "encodingFormat": TYPES[name.rpartition(".")[2]],
            "contentSize": str(len(text.encode())),
            "identifier": f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
        }
        for name, text in sorted(files.items())
    ]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": title,
        "description": "What left a site in one run of a federated study, and under which controls; no data of persons",
        "datePublished": made,
        "license": {"@id": TERMS["@id"]},
        "author": {"@id": SITE["@id"]},
        "publisher": {"@id": SITE["@id"]},
        "hasPart": [{"@id": each["@id"]} for each in parts],
    }
    descriptor = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": CONTEXT},
        "about": {"@id": "./"},
    }
    graph = [descriptor, root, TERMS, SITE, *parts]
    return json.dumps({"@context": f"{CONTEXT}/context", "@graph": graph}, indent=1) + "\n"
