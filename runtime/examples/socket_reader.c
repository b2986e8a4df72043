/* The records of `--output unix:///tmp/faces.sock` -> standard output, one JSON object per line.
 *
 *     cc -O2 -o socket_reader socket_reader.c && ./socket_reader /tmp/faces.sock
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int read_all(int from, void *into, size_t count) {
    for (size_t done = 0; done < count;) {
        ssize_t some = read(from, (char *)into + done, count - done);
        if (some <= 0) return 0;
        done += (size_t)some;
    }
    return 1;
}

int main(int count, char **arguments) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int from = socket(AF_UNIX, SOCK_STREAM, 0);
    if (count != 2 || strlen(arguments[1]) >= sizeof at.sun_path) return 2;
    strcpy(at.sun_path, arguments[1]);
    if (connect(from, (struct sockaddr *)&at, sizeof at)) return perror(arguments[1]), 1;
    uint8_t head[4];
    while (read_all(from, head, 4)) {
        size_t length = head[0] | head[1] << 8 | head[2] << 16 | (size_t)head[3] << 24;
        char *record = malloc(length + 1);
        if (!record || !read_all(from, record, length)) return 1;
        record[length] = 0;
        puts(record);
        fflush(stdout);
        free(record);
    }
    return 0;
}
