/* replay.c - run a fuzz target over a corpus without a fuzzer
 *
 * Theory of operation: a target is one file with LLVMFuzzerTestOneInput, as libFuzzer has it. Each
 * input file is given to it as it stands, then cut off at every length, then with every byte
 * inverted, one at a time; the last two stop at MUTATED_MAX bytes, so that a large input costs no
 * more than a small one. Every input is copied to an allocation of exactly its size, in which ASan
 * sees a read past the end. A finding is whatever ends the process.
 * Source: LLVM's documentation, "libFuzzer", "Fuzz Target". */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUTATED_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size);

    if (exact == NULL && size > 0)
        abort();
    if (size > 0)
        memcpy(exact, data, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static uint8_t *read_file(const char *path, size_t *ret_size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = NULL;
    size_t size = 0;
    size_t room = 0;

    if (file == NULL)
        return NULL;
    for (;;) {
        uint8_t *grown = realloc(data, room + 65536);

        if (grown == NULL)
            abort();
        data = grown;
        room += 65536;
        size += fread(data + size, 1, room - size, file);
        if (size < room)
            break;
    }
    (void)fclose(file);
    *ret_size = size;
    return data;
}

int main(int argc, char **argv)
{
    unsigned long n_runs = 0;

    for (int i = 1; i < argc; i++) {
        size_t size;
        uint8_t *data = read_file(argv[i], &size);
        size_t mutated;

        if (data == NULL) {
            fprintf(stderr, "%s: %s\n", argv[i], strerror(errno));
            return 1;
        }
        mutated = size < MUTATED_MAX ? size : MUTATED_MAX;
        run(data, size);
        for (size_t length = 0; length < mutated; length++)
            run(data, length);
        for (size_t at = 0; at < mutated; at++) {
            data[at] = (uint8_t)~data[at];
            run(data, size);
            data[at] = (uint8_t)~data[at];
        }
        n_runs += 1 + 2 * (unsigned long)mutated;
        free(data);
    }
    printf("%s: %d inputs, %lu runs\n", argv[0], argc - 1, n_runs);
    return 0;
}
