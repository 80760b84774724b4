/* times.c - many times of one thing, and what is said of them */
#include <stdio.h>
#include <stdlib.h>

#include "probe.h"

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;

    return (left > right) - (left < right);
}

static unsigned long long quantile(struct times times, unsigned percent)
{
    return times.ns[(times.n - 1) * percent / 100];
}

struct times make_times(size_t n)
{
    struct times times = {.ns = calloc(n, sizeof(*times.ns)), .n = n};

    if (times.ns == NULL)
        fail("calloc");
    return times;
}

void say_times(struct times times)
{
    qsort(times.ns, times.n, sizeof(*times.ns), by_value);
    printf("{\"p50_ns\": %llu, \"p99_ns\": %llu}\n", quantile(times, 50), quantile(times, 99));
    free(times.ns);
}

void say_rate(size_t n, uint64_t ns)
{
    printf("{\"per_s\": %.1f}\n", (double)n * (double)NS_PER_S / (double)ns);
}
