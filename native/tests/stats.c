/* Statistics: buckets are powers of two, and the page is one that readers share. */
#include "check.h"

static void times_fall_in_the_bucket_of_their_power_of_two(void)
{
    static const struct {
        uint64_t nanoseconds;
        unsigned bucket;
    } rows[] = {
        {0, 0},           {1, 0},           {2, 1},           {3, 1},
        {4, 2},           {1023, 9},        {1024, 10},       {(1ULL << 31) - 1, 30},
        {1ULL << 31, 31}, {1ULL << 32, 31}, {UINT64_MAX, 31},
    };

    for (size_t i = 0; i < MFD_COUNT(rows); i++) {
        uint64_t histogram[MFD_STATS_BUCKETS] = {0};

        mfd_stats_time(histogram, rows[i].nanoseconds);
        for (unsigned bucket = 0; bucket < MFD_STATS_BUCKETS; bucket++)
            CHECK_EQ(histogram[bucket], bucket == rows[i].bucket);
    }
}

static void a_reader_sees_what_is_counted(void)
{
    struct mfd_stats *stats = NULL;
    const struct mfd_stats *seen;
    int fd = -1;

    NEED(mfd_stats_open(&stats, &fd) == 0);
    seen = mmap(NULL, sizeof(*seen), PROT_READ, MAP_SHARED, fd, 0);
    NEED(seen != MAP_FAILED);
    CHECK_EQ(seen->version, MFD_WIRE_VERSION);
    CHECK_EQ(seen->calls, 0);
    stats->calls = 12345;
    CHECK_EQ(seen->calls, 12345);
    (void)close(fd);
}

int main(void)
{
    times_fall_in_the_bucket_of_their_power_of_two();
    a_reader_sees_what_is_counted();
    return check_result();
}
