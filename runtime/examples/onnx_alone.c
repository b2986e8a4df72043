/* A photograph and a face box -> 68 landmarks, by the ONNX file alone, in C.
 *
 *     cc -O2 -I INCLUDE -o onnx_alone onnx_alone.c LIBONNXRUNTIME.so -lm
 *     ./onnx_alone face.onnx photo.ppm X1 Y1 X2 Y2 [LOOKS]
 *
 * The same as onnx_alone.py, which explains it. PPM files: `ffmpeg -i photo.jpg photo.ppm`. */
#include <math.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>

static const double CENTRE_MM[3] = {0, -30, 0}, CROP_MM = 190, BOX_MM = 140;
static const OrtApi *ort;

typedef struct { int width, height; unsigned char *rgb; } Image;
typedef struct { double x, y, side, roll; } Square;          /* centre, pixels, radians */
typedef struct { double c, s, x, y, scale; } FrameFromCrop;  /* crop (u, v) is frame (cu - sv + x, su + cv + y) */

static void end(const char *message) { fprintf(stderr, "onnx_alone: %s\n", message); exit(1); }
static void check(OrtStatus *status) { if (status) end(ort->GetErrorMessage(status)); }

static Image new_image(int width, int height) {
    Image image = {width, height, malloc((size_t)width * height * 3)};
    if (!image.rgb) end("not enough memory");
    return image;
}

static Image read_ppm(const char *path) {
    FILE *file = fopen(path, "rb");
    int width, height;
    if (!file || fscanf(file, "P6 %d %d 255", &width, &height) != 2 || fgetc(file) == EOF || width < 1 || height < 1)
        end("the picture is no PPM file with 8 bits");
    Image image = new_image(width, height);
    if (fread(image.rgb, 3, (size_t)width * height, file) != (size_t)width * height) end("the picture is cut short");
    fclose(file);
    return image;
}

static Square square_from_camera(const double m[3][4]) {
    double at[2];
    for (int row = 0; row < 2; row++)
        at[row] = m[row][0] * CENTRE_MM[0] + m[row][1] * CENTRE_MM[1] + m[row][2] * CENTRE_MM[2] + m[row][3];
    double determinant = m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
                         m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
                         m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
    return (Square){at[0], at[1], CROP_MM * cbrt(fabs(determinant)), atan2(m[0][1], -m[1][1])};
}

/* The mean of 2 x 2 pixels; an odd last row or column counts twice. */
static Image halved(Image from) {
    Image half = new_image((from.width + 1) / 2, (from.height + 1) / 2);
    for (int y = 0; y < half.height; y++)
        for (int x = 0; x < half.width; x++)
            for (int k = 0; k < 3; k++) {
                int sum = 2;
                for (int part = 0; part < 4; part++) {
                    int column = 2 * x + part % 2, row = 2 * y + part / 2;
                    column -= column == from.width, row -= row == from.height;
                    sum += from.rgb[((size_t)row * from.width + column) * 3 + k];
                }
                half.rgb[((size_t)y * half.width + x) * 3 + k] = (unsigned char)(sum / 4);
            }
    return half;
}

static double level(Image image, int x, int y, int k) { /* black outside */
    return x < 0 || y < 0 || x >= image.width || y >= image.height
               ? 0 : image.rgb[((size_t)y * image.width + x) * 3 + k];
}

/* The crop as BGR bytes. */
static FrameFromCrop crop_of(Image image, Square square, int size, unsigned char *bgr) {
    double scale = square.side / size, middle = (size - 1) / 2.0;
    double c = scale * cos(square.roll), s = scale * sin(square.roll);
    double x = square.x - (c - s) * middle, y = square.y - (s + c) * middle;
    FrameFromCrop frame = {c, s, x, y, scale};
    int halvings = (int)lround(log2(fmax(scale, 1)));
    for (int n = 0; n < halvings; n++) {
        Image half = halved(image);
        if (n > 0) free(image.rgb);
        image = half;
        c /= 2, s /= 2, x = (x - 0.5) / 2, y = (y - 0.5) / 2;
    }
    for (int v = 0; v < size; v++)
        for (int u = 0; u < size; u++) {
            double px = c * u - s * v + x, py = s * u + c * v + y;
            int left = (int)floor(px), top = (int)floor(py);
            double fx = px - left, fy = py - top;
            for (int k = 2; k >= 0; k--)
                *bgr++ = (unsigned char)lround(
                    (1 - fy) * ((1 - fx) * level(image, left, top, k) + fx * level(image, left + 1, top, k)) +
                    fy * ((1 - fx) * level(image, left, top + 1, k) + fx * level(image, left + 1, top + 1, k)));
        }
    if (halvings > 0) free(image.rgb);
    return frame;
}

static int input_size(OrtSession *session) {
    OrtTypeInfo *type;
    const OrtTensorTypeAndShapeInfo *tensor;
    int64_t dims[4];
    check(ort->SessionGetInputTypeInfo(session, 0, &type));
    check(ort->CastTypeInfoToTensorInfo(type, &tensor));
    check(ort->GetDimensions(tensor, dims, 4));
    ort->ReleaseTypeInfo(type);
    return (int)dims[1];
}

int main(int count, char **given) {
    if (count < 7) end("give MODEL.onnx PHOTO.ppm X1 Y1 X2 Y2 [LOOKS]");
    ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!ort) end("the library is older than the header");
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *session;
    OrtMemoryInfo *memory;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "onnx_alone", &env));
    check(ort->CreateSessionOptions(&options));
    check(ort->CreateSession(env, given[1], options, &session));
    check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));

    Image image = read_ppm(given[2]);
    double x1 = atof(given[3]), y1 = atof(given[4]), x2 = atof(given[5]), y2 = atof(given[6]);
    Square square = {(x1 + x2) / 2, (y1 + y2) / 2, fmax(x2 - x1, y2 - y1) * CROP_MM / BOX_MM, 0};
    int size = input_size(session);
    int64_t shape[4] = {1, size, size, 3};
    Image crop = new_image(size, size);
    const char *inputs[1] = {"image"}, *outputs[3] = {"confidence", "crop_from_head", "landmarks"};
    for (int looks = count > 7 ? atoi(given[7]) : 2; looks > 0; looks--) {
        FrameFromCrop f = crop_of(image, square, size, crop.rgb);
        OrtValue *input, *found[3] = {NULL, NULL, NULL};
        float *confidence, *camera, *points;
        check(ort->CreateTensorWithDataAsOrtValue(memory, crop.rgb, (size_t)size * size * 3, shape, 4,
                                                  ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &input));
        check(ort->Run(session, NULL, inputs, (const OrtValue *const *)&input, 1, outputs, 3, found));
        check(ort->GetTensorMutableData(found[0], (void **)&confidence));
        check(ort->GetTensorMutableData(found[1], (void **)&camera));
        check(ort->GetTensorMutableData(found[2], (void **)&points));
        double head[3][4]; /* frame_from_head */
        for (int k = 0; k < 4; k++) {
            head[0][k] = f.c * camera[k] - f.s * camera[4 + k] + (k == 3 ? f.x : 0);
            head[1][k] = f.s * camera[k] + f.c * camera[4 + k] + (k == 3 ? f.y : 0);
            head[2][k] = f.scale * camera[8 + k];
        }
        square = square_from_camera(head);
        if (looks == 1) {
            printf("%.4f\n", confidence[0]);
            for (float *p = points; p < points + 68 * 3; p += 3)
                printf("%.3f %.3f\n", f.c * p[0] - f.s * p[1] + f.x, f.s * p[0] + f.c * p[1] + f.y);
        }
        ort->ReleaseValue(input);
        for (int n = 0; n < 3; n++) ort->ReleaseValue(found[n]);
    }
    free(image.rgb), free(crop.rgb);
    ort->ReleaseMemoryInfo(memory), ort->ReleaseSession(session);
    ort->ReleaseSessionOptions(options), ort->ReleaseEnv(env);
    return 0;
}
