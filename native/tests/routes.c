/* The route table: which rule a lookup finds, and that nothing but a sound, sealed table is mapped. */
#include <stddef.h>
#include <sys/stat.h>

#include "rules.h"

static const struct mfd_rule *example_rules(uint32_t *ret_n)
{
    static struct mfd_rule rules[15];
    uint32_t n = 0;

    rules[n++] = rule_of("", 0, 9000, 9000, MFD_DENY, ECONNREFUSED); /* 0: any address */
    rules[n++] = rule_of("127.0.0.0", 8, 0, 65535, MFD_DENY, EACCES);
    rules[n++] = rule_of("127.66.0.0", 16, 0, 65535, MFD_REDIRECT, 0);
    rules[n++] = rule_of("127.66.0.0", 16, 80, 90, MFD_REDIRECT, 1);
    rules[n++] = rule_of("127.66.0.0", 16, 80, 90, MFD_DENY, EPERM); /* 4: never, 3 came first */
    rules[n++] = rule_of("127.66.0.0", 16, 85, 85, MFD_PASS, 0);
    rules[n++] = rule_of("127.66.0.1", 32, 443, 443, MFD_ASK, 0);
    rules[n++] = rule_of("2001:db8::", 32, 0, 65535, MFD_DENY, EHOSTUNREACH);
    rules[n++] = rule_of("2001:db8::1", 128, 80, 80, MFD_REDIRECT, 1);
    rules[n++] = rule_of("2001:db8::", 65, 0, 79, MFD_PASS, 0);
    rules[n++] = rule_of("127.66.9.255", 24, 0, 0, MFD_ASK, 0); /* 10: bits past the prefix */
    rules[n++] = rule_of("0.0.0.0", 0, 9001, 9001, MFD_ASK, 0);
    rules[n++] = for_udp(rule_of("127.66.0.1", 32, 53, 53, MFD_DENY, EPERM)); /* 12 */
    rules[n++] = for_udp(rule_of("", 0, 80, 80, MFD_ASK, 0));
    rules[n++] = for_udp(rule_of("2001:db8::", 29, 0, 65535, MFD_DENY, EACCES));
    *ret_n = n;
    return rules;
}

static int example_table(void)
{
    static const struct mfd_upstream upstreams[] = {
        {.balance = MFD_ROUND_ROBIN, .first_endpoint = 0, .n_endpoints = 2},
        {.balance = MFD_RANDOM, .first_endpoint = 2, .n_endpoints = 1},
    };
    const struct mfd_endpoint endpoints[] = {
        {.address = address_of("127.0.0.1", 8080), .weight = 2},
        {.address = address_of("::1", 8080), .weight = 1},
        unix_endpoint_of("/run/one.sock"),
    };
    uint32_t n_rules;
    const struct mfd_rule *rules = example_rules(&n_rules);

    return mfd_routes_compile(rules, n_rules, upstreams, 2, endpoints, 3);
}

static void the_most_specific_rule_wins(void)
{
    static const struct {
        const char *ip;
        uint16_t port;
        uint32_t rule;
        uint32_t verdict;
        uint32_t argument;
    } rows[] = {
        {"127.1.0.1", 80, 1, MFD_DENY, EACCES},
        {"127.66.0.1", 79, 2, MFD_REDIRECT, 0},
        {"127.66.0.1", 80, 3, MFD_REDIRECT, 1},
        {"127.66.0.1", 84, 3, MFD_REDIRECT, 1},
        {"127.66.0.1", 85, 5, MFD_PASS, 0},
        {"127.66.0.1", 86, 3, MFD_REDIRECT, 1},
        {"127.66.0.1", 90, 3, MFD_REDIRECT, 1},
        {"127.66.0.1", 91, 2, MFD_REDIRECT, 0},
        {"127.66.0.1", 443, 6, MFD_ASK, 0},
        {"127.66.0.2", 443, 2, MFD_REDIRECT, 0},
        {"127.66.0.1", 65535, 2, MFD_REDIRECT, 0},
        {"127.66.9.1", 0, 10, MFD_ASK, 0},
        {"127.66.9.1", 1, 2, MFD_REDIRECT, 0},
        {"127.0.0.1", 9000, 1, MFD_DENY, EACCES}, /* the prefix is looked at first */
        {"10.0.0.1", 9000, 0, MFD_DENY, ECONNREFUSED},
        {"10.0.0.1", 9001, 11, MFD_ASK, 0},
        {"::1", 9000, 0, MFD_DENY, ECONNREFUSED},
        {"::1", 9001, MFD_ANY, MFD_PASS, 0},
        {"10.0.0.1", 80, MFD_ANY, MFD_PASS, 0},
        {"2001:db8::1", 80, 8, MFD_REDIRECT, 1},
        {"2001:db8::1", 79, 9, MFD_PASS, 0},
        {"2001:db8:0:0:8000::1", 79, 7, MFD_DENY, EHOSTUNREACH},
        {"2001:db9::1", 79, MFD_ANY, MFD_PASS, 0},
    };
    MFD_CLOSE int fd = example_table();
    const struct mfd_table *table = map_of(fd);

    for (size_t i = 0; i < MFD_COUNT(rows); i++) {
        struct mfd_match match = found(table, rows[i].ip, rows[i].port);
        char about[64];

        (void)snprintf(about, sizeof(about), "%s port %u", rows[i].ip, rows[i].port);
        check_about = about;
        CHECK_EQ(match.rule, rows[i].rule);
        CHECK_EQ(match.verdict, rows[i].verdict);
        CHECK_EQ(match.argument, rows[i].argument);
        check_about = "";
    }
    mfd_routes_unmap(table);
}

/* Other lengths of prefix too: a protocol's networks are found by its own. */
static void a_rule_is_for_its_own_protocol_alone(void)
{
    MFD_CLOSE int fd = example_table();
    const struct mfd_table *table = map_of(fd);

    CHECK_EQ(found_udp(table, "127.66.0.1", 53).rule, 12);
    CHECK_EQ(found(table, "127.66.0.1", 53).rule, 2);
    CHECK_EQ(found_udp(table, "127.66.0.1", 80).rule, 13);
    CHECK_EQ(found_udp(table, "127.66.0.1", 443).rule, MFD_ANY);
    CHECK_EQ(found_udp(table, "127.66.0.2", 53).rule, MFD_ANY);
    CHECK_EQ(found_udp(table, "::1", 80).rule, 13);
    CHECK_EQ(found_udp(table, "2001:db8::1", 80).rule, 14);
    CHECK_EQ(found(table, "2001:db9::1", 80).rule, MFD_ANY);
    mfd_routes_unmap(table);
}

static void no_table_passes_everything(void)
{
    struct mfd_match match = found(NULL, "127.0.0.1", 80);

    CHECK_EQ(match.verdict, MFD_PASS);
    CHECK_EQ(match.rule, MFD_ANY);
    mfd_routes_unmap(NULL);
}

/* --- what is not mapped --------------------------------------------------------------------------- */

static uint8_t *bytes_of(int fd, size_t *ret_size)
{
    struct stat status;
    uint8_t *bytes;

    NEED(fstat(fd, &status) == 0);
    *ret_size = (size_t)status.st_size;
    bytes = malloc(*ret_size);
    NEED(bytes != NULL && pread(fd, bytes, *ret_size, 0) == (ssize_t)*ret_size);
    return bytes;
}

static int map_bytes(const uint8_t *bytes, size_t size, const struct mfd_table **ret_table)
{
    MFD_CLOSE int fd = sealed_memfd_of(bytes, size);

    return mfd_routes_map(fd, ret_table);
}

static void expect_refusal(uint8_t *bytes, size_t size, size_t at, size_t width, uint64_t value)
{
    const struct mfd_table *table = NULL;
    uint8_t saved[sizeof(value)];
    int error;

    NEED(at + width <= size && width <= sizeof(value));
    memcpy(saved, bytes + at, width);
    memcpy(bytes + at, &value, width); /* little-endian, as every machine that meshfd runs on */
    error = map_bytes(bytes, size, &table);
    CHECK_EQ(error, -EBADMSG);
    if (error == 0)
        mfd_routes_unmap(table);
    memcpy(bytes + at, saved, width);
}

#define REFUSES(record, field, value)                                                              \
    do {                                                                                           \
        check_about = #field " = " #value;                                                         \
        expect_refusal(bytes, size,                                                                \
                       (size_t)((uint8_t *)(record) - bytes) +                                     \
                           offsetof(__typeof__(*(record)), field),                                 \
                       sizeof((record)->field), (value));                                          \
        check_about = "";                                                                          \
    } while (0)

static void corrupted_headers_are_refused(uint8_t *bytes, size_t size)
{
    struct mfd_table *table = (struct mfd_table *)(void *)bytes;

    REFUSES(table, magic, table->magic + 1);
    REFUSES(table, version, 0);
    REFUSES(table, version, MFD_ROUTES_VERSION + 1);
    REFUSES(table, size, table->size + 8);
    REFUSES(table, size, table->size - 8);
    REFUSES(table, size, 0);
    REFUSES(table, n_rules, 0);
    REFUSES(table, n_rules, 14);
    REFUSES(table, n_slots, 0);
    REFUSES(table, n_slots, 63);
    REFUSES(table, n_slots, 1u << 31);
    REFUSES(table, n_intervals, 0);
    REFUSES(table, n_intervals, UINT32_MAX);
    REFUSES(table, n_intervals, 1u << 28); /* times 16 is 0 in 32 bits */
    REFUSES(table, n_upstreams, 1);
    REFUSES(table, n_upstreams, UINT32_MAX);
    REFUSES(table, n_endpoints, 2);
    REFUSES(table, n_endpoints, UINT32_MAX);
    REFUSES(table, n_schedule, 0);
    REFUSES(table, n_schedule, UINT32_MAX);
    for (unsigned i = 0; i < MFD_PROTOCOLS; i++) {
        REFUSES(table, prefixes[i].ipv4, 1ULL << 33);
        REFUSES(table, prefixes[i].ipv4, 1ULL << 63);
        REFUSES(table, prefixes[i].ipv6[2], 2);
        REFUSES(table, prefixes[i].ipv6[2], 1ULL << 63);
    }
}

static void corrupted_offsets_are_refused(uint8_t *bytes, size_t size)
{
    static const size_t offsets[] = {
        offsetof(struct mfd_table, slots_at),     offsetof(struct mfd_table, intervals_at),
        offsetof(struct mfd_table, upstreams_at), offsetof(struct mfd_table, endpoints_at),
        offsetof(struct mfd_table, schedule_at),
    };
    static const uint64_t values[] = {0, 8, sizeof(struct mfd_table) - 8, UINT32_MAX,
                                      UINT32_MAX - 7};

    for (size_t i = 0; i < MFD_COUNT(offsets); i++) {
        uint32_t right;

        memcpy(&right, bytes + offsets[i], sizeof(right));
        for (size_t j = 0; j < MFD_COUNT(values); j++)
            expect_refusal(bytes, size, offsets[i], sizeof(uint32_t), values[j]);
        expect_refusal(bytes, size, offsets[i], sizeof(uint32_t), right + 1);
        expect_refusal(bytes, size, offsets[i], sizeof(uint32_t), right + 4);
        expect_refusal(bytes, size, offsets[i], sizeof(uint32_t), size);
        expect_refusal(bytes, size, offsets[i], sizeof(uint32_t), size + 8);
    }
}

static void corrupted_slots_are_refused(uint8_t *bytes, size_t size)
{
    struct mfd_table *table = (struct mfd_table *)(void *)bytes;
    struct mfd_slot *slots = (struct mfd_slot *)(void *)(bytes + table->slots_at);
    const struct mfd_table *mapped;
    uint8_t *all;

    for (uint32_t i = 0; i < table->n_slots; i++) {
        struct mfd_slot *slot = &slots[i];

        if (slot->family == 0)
            continue;
        REFUSES(slot, family, AF_UNIX);
        REFUSES(slot, family, UINT16_MAX);
        REFUSES(slot, protocol, 0);
        REFUSES(slot, protocol, IPPROTO_MPTCP);
        REFUSES(slot, prefix, slot->family == AF_INET ? 33 : 129);
        REFUSES(slot, prefix, UINT16_MAX);
        REFUSES(slot, first_interval, table->n_intervals + 1);
        REFUSES(slot, first_interval, UINT32_MAX);
        REFUSES(slot, n_intervals, table->n_intervals - slot->first_interval + 1);
        REFUSES(slot, n_intervals, UINT32_MAX);
    }
    all = malloc(size);
    NEED(all != NULL);
    memcpy(all, bytes, size);
    slots = (struct mfd_slot *)(void *)(all + table->slots_at);
    for (uint32_t i = 0; i < table->n_slots; i++)
        slots[i].family = AF_INET;
    for (uint32_t i = 0; i < table->n_slots; i++)
        slots[i].prefix = 32;
    CHECK_EQ(map_bytes(all, size, &mapped), -EBADMSG); /* a search would not end */
    free(all);
}

static void corrupted_intervals_are_refused(uint8_t *bytes, size_t size)
{
    struct mfd_table *table = (struct mfd_table *)(void *)bytes;
    struct mfd_interval *intervals = (struct mfd_interval *)(void *)(bytes + table->intervals_at);

    for (uint32_t i = 0; i < table->n_intervals; i++) {
        struct mfd_interval *interval = &intervals[i];

        if (interval->last_port < 65535)
            REFUSES(interval, first_port, interval->last_port + 1u);
        if (interval->first_port > 0)
            REFUSES(interval, last_port, interval->first_port - 1u);
        REFUSES(interval, verdict, 0);
        REFUSES(interval, verdict, MFD_ASK + 1);
        REFUSES(interval, rule, table->n_rules);
        REFUSES(interval, rule, MFD_ANY);
        if (interval->verdict == MFD_DENY) {
            REFUSES(interval, argument, 0);
            REFUSES(interval, argument, 4096);
        }
        if (interval->verdict == MFD_REDIRECT) {
            REFUSES(interval, argument, table->n_upstreams);
            REFUSES(interval, argument, UINT32_MAX);
        }
    }
}

static void corrupted_upstreams_are_refused(uint8_t *bytes, size_t size)
{
    struct mfd_table *table = (struct mfd_table *)(void *)bytes;
    struct mfd_table_upstream *upstreams =
        (struct mfd_table_upstream *)(void *)(bytes + table->upstreams_at);
    struct mfd_endpoint *endpoints = (struct mfd_endpoint *)(void *)(bytes + table->endpoints_at);
    uint16_t *schedule = (uint16_t *)(void *)(bytes + table->schedule_at);

    for (uint32_t i = 0; i < table->n_upstreams; i++) {
        struct mfd_table_upstream *upstream = &upstreams[i];

        REFUSES(upstream, first_endpoint, table->n_endpoints - upstream->n_endpoints + 1);
        REFUSES(upstream, first_endpoint, UINT32_MAX);
        REFUSES(upstream, n_endpoints, 0); /* the schedule names one */
        REFUSES(upstream, n_endpoints, table->n_endpoints + 1);
        REFUSES(upstream, n_endpoints, UINT32_MAX);
        REFUSES(upstream, first_schedule, table->n_schedule - upstream->n_schedule + 1);
        REFUSES(upstream, first_schedule, UINT32_MAX);
        REFUSES(upstream, n_schedule, 0);
        REFUSES(upstream, n_schedule, table->n_schedule - upstream->first_schedule + 1);
        REFUSES(upstream, n_schedule, UINT32_MAX);
        check_about = "schedule";
        for (uint32_t j = 0; j < upstream->n_schedule; j++)
            expect_refusal(bytes, size,
                           (size_t)((uint8_t *)&schedule[upstream->first_schedule + j] - bytes),
                           sizeof(*schedule), upstream->n_endpoints);
    }
    for (uint32_t i = 0; i < table->n_endpoints; i++) {
        REFUSES(&endpoints[i], address.family, 0);
        REFUSES(&endpoints[i], address.family, AF_NETLINK);
        REFUSES(&endpoints[i], path_size, endpoints[i].address.family == AF_UNIX ? 0 : 1);
        REFUSES(&endpoints[i], path_size, MFD_UNIX_PATH_MAX);
    }
}

/* Whatever is mapped all the same can be searched, and says nothing that its own numbers deny. */
static void any_byte_may_be_wrong(uint8_t *bytes, size_t size)
{
    static const char *const asked[] = {"127.66.0.1", "10.0.0.1", "2001:db8::1", "::"};

    for (size_t at = 0; at < size; at++) {
        const struct mfd_table *table = NULL;

        bytes[at] ^= 0xff;
        if (map_bytes(bytes, size, &table) == 0) {
            for (size_t i = 0; i < MFD_COUNT(asked); i++) {
                struct mfd_match match = found(table, asked[i], 85);

                CHECK(match.rule == MFD_ANY || match.rule < table->n_rules);
                CHECK(match.verdict != MFD_REDIRECT || match.argument < table->n_upstreams);
            }
            mfd_routes_unmap(table);
        }
        bytes[at] ^= 0xff;
    }
}

static void tables_of_other_sizes_are_refused(uint8_t *bytes, size_t size)
{
    const struct mfd_table *table;
    uint8_t *longer = calloc(1, size + 8);

    NEED(longer != NULL);
    memcpy(longer, bytes, size);
    CHECK_EQ(map_bytes(bytes, 0, &table), -EBADMSG);
    CHECK_EQ(map_bytes(bytes, sizeof(*table) - 1, &table), -EBADMSG);
    CHECK_EQ(map_bytes(bytes, sizeof(*table), &table), -EBADMSG);
    CHECK_EQ(map_bytes(bytes, size - 1, &table), -EBADMSG);
    CHECK_EQ(map_bytes(longer, size + 8, &table), -EBADMSG);
    free(longer);
}

static void what_could_change_later_is_refused(const uint8_t *bytes, size_t size)
{
    static const int incomplete[] = {
        0,
        F_SEAL_WRITE | F_SEAL_SHRINK,
        F_SEAL_WRITE | F_SEAL_GROW,
        F_SEAL_SHRINK | F_SEAL_GROW,
    };
    const struct mfd_table *table;
    MFD_CLOSE int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    for (size_t i = 0; i < MFD_COUNT(incomplete); i++) {
        MFD_CLOSE int fd = memfd_of(bytes, size);

        NEED(incomplete[i] == 0 || fcntl(fd, F_ADD_SEALS, incomplete[i]) == 0);
        CHECK_EQ(mfd_routes_map(fd, &table), -EPERM);
    }
    CHECK_EQ(mfd_routes_map(null_fd, &table), -EPERM);
    CHECK_EQ(mfd_routes_map(-1, &table), -EPERM);
}

static void only_sound_tables_are_mapped(void)
{
    MFD_CLOSE int fd = example_table();
    const struct mfd_table *table = NULL;
    uint8_t *bytes;
    size_t size;

    NEED(fd >= 0);
    bytes = bytes_of(fd, &size);
    CHECK_EQ(map_bytes(bytes, size, &table), 0); /* what follows rests on that */
    mfd_routes_unmap(table);
    corrupted_headers_are_refused(bytes, size);
    corrupted_offsets_are_refused(bytes, size);
    corrupted_slots_are_refused(bytes, size);
    corrupted_intervals_are_refused(bytes, size);
    corrupted_upstreams_are_refused(bytes, size);
    any_byte_may_be_wrong(bytes, size);
    tables_of_other_sizes_are_refused(bytes, size);
    what_could_change_later_is_refused(bytes, size);
    free(bytes);
}

int main(void)
{
    the_most_specific_rule_wins();
    a_rule_is_for_its_own_protocol_alone();
    no_table_passes_everything();
    only_sound_tables_are_mapped();
    return check_result();
}
