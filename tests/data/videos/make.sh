#!/bin/sh
# Makes the videos of this folder, in this folder, with ffmpeg 5.1 (Debian 12). Tests read the files and need no ffmpeg.
set -eu
cd "$(dirname "$0")"
run() { ffmpeg -y -v error -bitexact "$@"; }

# Grey frames of 64x48 pixels: luma is 40 in the first, and 15 more in each that follows.
steps="nullsrc=s=64x48:r=25,geq=lum='40+15*mod(N,12)':cb=128:cr=128"

# Interlaced, in the codecs of camcorders and editors.
run -f lavfi -i "$steps" -frames:v 12 -c:v mpeg2video -flags +ildct+ilme -q:v 3 interlaced.mpg
run -f lavfi -i "$steps" -frames:v 12 -c:v prores_ks -flags +ildct+ilme interlaced.mov
run -f lavfi -i "$steps" -frames:v 12 -c:v libx264 -x264opts interlaced=1 -pix_fmt yuv422p interlaced.mp4
run -f lavfi -i "$steps" -frames:v 12 -c:v libx264 -x264opts interlaced=1 -pix_fmt yuv420p -f mpegts interlaced.mts
run -f lavfi -i "$steps" -frames:v 12 -c:v mpeg4 -flags +ildct+ilme -q:v 3 interlaced.avi

# Not interlaced, and every frame the same.
run -f lavfi -i "color=gray:s=64x48:r=25" -frames:v 30 -c:v libx264 -pix_fmt yuv420p still.mp4

# A disc of radius 20 in square pixels, recorded in pixels of other shapes.
disc() { # width, width of a pixel over its height, as a fraction, name
    run -f lavfi -i "nullsrc=s=$1x48:r=25,geq=lum='if(lt(hypot((X-W/2+0.5)*$2,Y-H/2+0.5),20),200,40)':cb=128:cr=128,setsar=$2" \
        -frames:v 3 -c:v libx264 -crf 10 -pix_fmt yuv420p "$3"
}
disc 48 4/3 pixels_4_3.mp4
disc 46 64/45 pixels_64_45.mkv
disc 32 2/1 pixels_2_1.mp4
disc 80 4/5 pixels_4_5.mp4

# Trimmed without encoding: four frames before the first that is shown stay in the file, which an edit list leaves out.
run -f lavfi -i "$steps" -frames:v 36 -c:v libx264 -g 12 -bf 0 -pix_fmt yuv420p clip.mp4
run -ss 0.16 -i clip.mp4 -c copy trimmed.mp4
# Begins at 100 s.
run -i clip.mp4 -c copy -output_ts_offset 100 late.mkv
# A broadcast.
run -i clip.mp4 -c copy clip.ts
# A video with a cover, and a small video before a large one.
run -i clip.mp4 -frames:v 1 -vf scale=320:240 -pix_fmt yuvj420p cover.jpg
run -i clip.mp4 -i cover.jpg -map 1 -map 0 -c copy -disposition:v:0 attached_pic cover.mp4
for suffix in mp4 mkv; do
    run -i clip.mp4 -filter_complex "[0:v]split[a][b];[a]scale=32:24[small]" -map "[small]" -map "[b]" \
        -c:v libx264 -frames:v 12 two.$suffix
done
rm cover.jpg
# Codecs that OpenCV lacks.
run -f lavfi -i "$steps" -frames:v 12 -c:v libaom-av1 -cpu-used 8 -pix_fmt yuv420p av1.mp4
# With sound, of two kinds: 440 Hz.
run -i clip.mp4 -f lavfi -i sine=440:sample_rate=22050 -c:v copy -c:a aac -b:a 24k -t 1.44 sound.mp4
run -i clip.mp4 -f lavfi -i sine=440:sample_rate=22050 -c:v libvpx -b:v 50k -c:a libvorbis -t 1.44 sound.webm
