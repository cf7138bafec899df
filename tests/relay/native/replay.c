/* Runs the fuzz target without libFuzzer:  replay SEED COUNT [FILE...]  gives it the files, then COUNT random inputs from SEED on. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 8192 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t data[MOST];

static void fill(uint64_t seed)
{
    uint64_t state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    for (size_t at = 0; at < MOST; at++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data[at] = (uint8_t)(state >> 24);
    }
}

int main(int count, char **arguments)
{
    if (count < 3)
        return 2;
    for (int at = 3; at < count; at++) {
        FILE *file = fopen(arguments[at], "rb");
        if (file == NULL)
            return 2;
        size_t size = fread(data, 1, MOST, file);
        fclose(file);
        fprintf(stderr, "%s\n", arguments[at]);
        LLVMFuzzerTestOneInput(data, size);
    }
    uint64_t first = strtoull(arguments[1], NULL, 10), runs = strtoull(arguments[2], NULL, 10);
    for (uint64_t seed = first; seed < first + runs; seed++) {
        fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
        fill(seed);
        LLVMFuzzerTestOneInput(data, seed * 997 % MOST);
    }
    printf("%d files, %llu random inputs\n", count - 3, (unsigned long long)runs);
    return 0;
}
