"""Real-time 3D face reconstruction: photographs, photograph sets, videos and cameras in, posed and animated face meshes out."""
