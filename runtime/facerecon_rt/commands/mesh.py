"""`facerecon-rt mesh`: records and the file of identities -> the mesh of one face in one frame."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..head import mesh_form
from ..sinks.identities import read_identities, read_record, vertices_from_record
from ..sinks.meshes import check_mesh_format, write_mesh
from ..sinks.outputs import check_writable
from ..sinks.parts import parts_of
from ..template import load_template
from ..values import name, whole
from .arguments import Parser, add_mesh, add_unit


def main(arguments: Sequence[str]) -> int:
    """Run `mesh` with the arguments behind it. Returns the exit code. Raises UsageError."""
    options = mesh_parser().parse_args(arguments)
    output = Path(options.output)
    check_mesh_format(output)
    check_writable(output)
    record = read_record(options.records, options.frame, options.source)
    identities = read_identities(options.identity)
    form = mesh_form(options.mesh, load_template())
    vertices = vertices_from_record(record, identities, face=options.face, track=options.track, form=form)
    parts = parts_of(form, vertices, vertices[: form.face.vertex_count], None, eyes=False)
    write_mesh(output, vertices, form.template, options.unit, parts=parts)
    sys.stderr.write(f"wrote {output}\n")
    return 0


def mesh_parser() -> argparse.ArgumentParser:
    """Return the parser of `mesh`."""
    parser = Parser(
        prog="facerecon-rt mesh",
        description="Rebuild the mesh of a face from its record. The neutral faces are in the file that --output "
        "identity.npz of the same run wrote; no model and no picture is needed.",
        epilog="example: facerecon-rt mesh records.jsonl --identity identity.npz --frame 120 --output face.obj",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("records", type=name, metavar="RECORDS", help="file of records (.jsonl)")
    parser.add_argument("--identity", type=name, required=True, metavar="FILE", help="neutral faces of the run (.npz)")
    parser.add_argument("--frame", type=whole, required=True, metavar="N", help="number of the frame, as in the record")
    parser.add_argument("--source", type=name, metavar="X", help="source, as in the record [the only one]")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--track", type=whole, metavar="N", help="track of the face [the only face]")
    which.add_argument("--face", type=whole, metavar="N", help="index of the face in the record [the only face]")
    parser.add_argument("-o", "--output", type=name, required=True, metavar="FILE", help="mesh: .obj .ply .glb")
    add_unit(parser)
    add_mesh(parser, ".glb, .obj and .ply")
    return parser
