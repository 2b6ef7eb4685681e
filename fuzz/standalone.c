/* Runs the targets without libFuzzer, each on a fixed pseudo-random corpus and on files: `standalone TARGET INPUTS [FILE...]`.
 * For any C compiler; the name of every target is given to its LLVMFuzzerTestOneInput when it is compiled. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
void __sanitizer_set_death_callback(void (*callback)(void));
#endif

#define TARGETS(X) X(table) X(rans) X(plain) X(uniform) X(planes) X(roundtrip) X(paths) X(helpers) X(hash) \
    X(adaptive) X(runs)
#define DECLARE(name) int fuzz_##name(const uint8_t *data, size_t size);
#define ENTRY(name) {#name, fuzz_##name},
TARGETS(DECLARE)

typedef int (*target)(const uint8_t *data, size_t size);
static const struct {
    const char *name;
    target run;
} targets[] = {TARGETS(ENTRY)};

static const uint8_t *current;
static size_t current_size;

static void show_input(void) {
    fprintf(stderr, "the input, in hexadecimal: ");
    for (size_t i = 0; i < current_size; i++) fprintf(stderr, "%02x", current[i]);
    fprintf(stderr, "\n");
}

static void show_and_die(int signal_number) {
    show_input();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* In memory of exactly this size. */
static void run(target t, const uint8_t *data, size_t size) {
    uint8_t *exact = malloc(size ? size : 1);
    if (exact == NULL) exit(2);
    if (size > 0) memcpy(exact, data, size);
    current = exact;
    current_size = size;
    t(exact, size);
    free(exact);
}

static uint32_t next_random(uint64_t *state) { /* PCG, 32 bits */
    uint64_t x = *state;
    *state = x * 6364136223846793005u + 1442695040888963407u;
    uint32_t mixed = (uint32_t)((x >> 18 ^ x) >> 27), turn = (uint32_t)(x >> 59);
    return mixed >> turn | mixed << (-turn & 31);
}

static void run_random(target t, long inputs) {
    uint8_t data[512];
    uint64_t state = 20261122;
    for (long i = 0; i < inputs; i++) {
        size_t size = next_random(&state) % (i % 4 ? 96 : sizeof data);
        uint32_t mask = i % 3 ? 0xFF : next_random(&state); /* a third of the inputs have few different bytes */
        for (size_t k = 0; k < size; k++) data[k] = (uint8_t)(next_random(&state) & mask);
        run(t, data, size);
    }
}

static void run_file(target t, const char *path) {
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    run(t, data, size);
}

int main(int argc, char **argv) {
    signal(SIGABRT, show_and_die);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_set_death_callback(show_input);
#else
    signal(SIGSEGV, show_and_die);
#endif
    for (size_t k = 0; argc >= 3 && k < sizeof targets / sizeof *targets; k++) {
        if (strcmp(targets[k].name, argv[1]) != 0) continue;
        run_random(targets[k].run, atol(argv[2]));
        for (int i = 3; i < argc; i++) run_file(targets[k].run, argv[i]);
        printf("%s: %s inputs and %d files\n", argv[1], argv[2], argc - 3);
        return 0;
    }
    fprintf(stderr, "usage: standalone TARGET INPUTS [FILE...]\n");
    return 2;
}
