"""A take -> Blender's reading of it, as one line of JSON. `benchmarks/takes.py` runs it in a Python that has bpy.

python benchmarks/takes_in_blender.py TAKE FRAME FPS VERTICES
"""

from __future__ import annotations

import json
import sys

import bpy

path, frame, fps, vertices = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), json.loads(sys.argv[4])
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.context.scene.render.fps = round(fps)
bpy.ops.import_scene.gltf(filepath=path, merge_vertices=False)
(head,) = (each for each in bpy.data.objects if each.type == "MESH" and each.data.shape_keys)
names = [key.name for key in head.data.shape_keys.key_blocks][1:]
# glTF's seconds become Blender's frames, from 0.
bpy.context.scene.frame_set(frame)
evaluated = head.evaluated_get(bpy.context.evaluated_depsgraph_get())
places = [evaluated.matrix_world @ evaluated.data.vertices[index].co for index in vertices]
action = head.data.shape_keys.animation_data.action
curves = action.fcurves if hasattr(action, "fcurves") else action.layers[0].strips[0].channelbags[0].fcurves
print(
    json.dumps(
        {
            "version": bpy.app.version_string,
            "nodes": sorted(each.name for each in bpy.data.objects),
            "shape_keys": len(names),
            "names": names,
            "keys": len(curves[0].keyframe_points),
            # Blender's z is up: (x, y, z) there is (x, z, -y) in glTF.
            "places": [[x, z, -y] for x, y, z in places],
        }
    )
)
