/* routes_compile.c - build a route table from rules
 *
 * Theory of operation: the rules are sorted into networks. Within one network "the narrowest port
 * range wins, then the first given" is settled here: the borders of all its ranges cut the ports into
 * pieces, and the rules, best first, take the pieces that are still free (union-find skips the taken
 * ones). Neighbours that fell to the same rule become one interval. Endpoints are laid out as a
 * schedule in which each stands as often as its weight says, as evenly spread as it goes (smooth
 * weighted round-robin, the order that nginx made known), so that the agent's choice is one read.
 *
 * Runs in the supervisor; allocates, and takes n log n time.
 * Limits: a schedule holds MFD_SCHEDULE_MAX entries; weights that need more are scaled down, and
 * none that is not 0 is scaled to 0. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"
#include "routes.h"
#include "util.h"

/* A rule for one family, keyed by its network. */
struct entry {
    struct mfd_slot network;
    uint32_t width; /* ports covered */
    uint32_t rule;
};

struct build {
    const struct mfd_rule *rules;
    struct entry *entries;
    uint32_t n_entries;
    struct mfd_slot *slots;
    uint32_t n_slots;
    struct mfd_interval *intervals;
    uint32_t n_intervals;
    struct mfd_table_upstream *upstreams;
    uint16_t *schedule;
    uint32_t n_schedule;
    struct mfd_prefixes prefixes[MFD_PROTOCOLS];
};

static void build_free(struct build *build)
{
    free(build->entries);
    free(build->slots);
    free(build->intervals);
    free(build->upstreams);
    free(build->schedule);
}

#define BUILD_FREE __attribute__((cleanup(build_free)))

static int compare_networks(const struct mfd_slot *a, const struct mfd_slot *b)
{
    if (a->protocol != b->protocol)
        return a->protocol < b->protocol ? -1 : 1;
    if (a->family != b->family)
        return a->family < b->family ? -1 : 1;
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix ? -1 : 1;
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

/* Networks together; within one, the rule that wins first. */
static int compare_entries(const void *left, const void *right)
{
    const struct entry *a = left;
    const struct entry *b = right;
    int order = compare_networks(&a->network, &b->network);

    if (order != 0)
        return order;
    if (a->width != b->width)
        return a->width < b->width ? -1 : 1;
    return a->rule < b->rule ? -1 : a->rule > b->rule;
}

static int compare_borders(const void *left, const void *right)
{
    const uint32_t *a = left;
    const uint32_t *b = right;

    return *a < *b ? -1 : *a > *b;
}

static void add_entry(struct build *build, uint32_t rule, uint16_t family)
{
    const struct mfd_rule *given = &build->rules[rule];
    struct entry *entry = &build->entries[build->n_entries++];

    *entry = (struct entry){
        .network = {.family = family, .protocol = given->protocol},
        .rule = rule,
    };
    entry->width = (uint32_t)given->last_port - given->first_port + 1;
    if (given->network.family != 0) {
        entry->network.prefix = given->prefix;
        memcpy(entry->network.bytes, given->network.bytes, family == AF_INET6 ? 16 : 4);
    }
    (void)mfd_routes_mask_hash(&entry->network);
}

static bool rule_is_valid(const struct mfd_rule *rule, uint32_t n_upstreams)
{
    uint16_t family = rule->network.family;

    if (rule->first_port > rule->last_port)
        return false;
    if (family != 0 && family != AF_INET && family != AF_INET6)
        return false;
    if (rule->protocol != IPPROTO_TCP && rule->protocol != IPPROTO_UDP)
        return false;
    if (rule->prefix > (family == AF_INET ? 32 : family == AF_INET6 ? 128 : 0))
        return false;
    switch (rule->verdict) {
    case MFD_PASS:
    case MFD_ASK:
        return true;
    case MFD_DENY:
        return rule->error > 0 && rule->error <= 4095;
    case MFD_REDIRECT:
        return rule->upstream < n_upstreams;
    default:
        return false;
    }
}

static uint32_t find_free(uint32_t *next, uint32_t piece)
{
    while (next[piece] != piece) {
        next[piece] = next[next[piece]];
        piece = next[piece];
    }
    return piece;
}

static uint32_t lower_bound(const uint32_t *borders, uint32_t n, uint32_t value)
{
    uint32_t low = 0;

    while (low < n) {
        uint32_t middle = low + (n - low) / 2;

        if (borders[middle] < value)
            low = middle + 1;
        else
            n = middle;
    }
    return low;
}

static void emit_interval(struct build *build, uint32_t first, uint32_t last, uint32_t rule)
{
    const struct mfd_rule *given = &build->rules[rule];

    build->intervals[build->n_intervals++] = (struct mfd_interval){
        .first_port = (uint16_t)first,
        .last_port = (uint16_t)last,
        .verdict = given->verdict,
        .rule = rule,
        .argument = given->verdict == MFD_REDIRECT ? given->upstream : given->error,
    };
}

/* Settle the ports of one network.
 * @scratch: room for 6n + 3 words */
static void settle_ports(struct build *build, const struct entry *entries, uint32_t n,
                         uint32_t *scratch)
{
    uint32_t *borders = scratch;
    uint32_t *next = borders + 2 * (size_t)n;
    uint32_t *owner = next + 2 * (size_t)n + 1;
    uint32_t n_borders = 0;
    uint32_t n_unique = 1;

    for (uint32_t i = 0; i < n; i++) {
        const struct mfd_rule *rule = &build->rules[entries[i].rule];

        borders[n_borders++] = rule->first_port;
        borders[n_borders++] = rule->last_port + 1u;
    }
    qsort(borders, n_borders, sizeof(*borders), compare_borders);
    for (uint32_t i = 1; i < n_borders; i++)
        if (borders[i] != borders[n_unique - 1])
            borders[n_unique++] = borders[i];
    for (uint32_t i = 0; i <= n_unique; i++) {
        next[i] = i;
        owner[i] = MFD_ANY;
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct mfd_rule *rule = &build->rules[entries[i].rule];
        uint32_t end = lower_bound(borders, n_unique, rule->last_port + 1u);
        uint32_t piece = find_free(next, lower_bound(borders, n_unique, rule->first_port));

        while (piece < end) {
            owner[piece] = entries[i].rule;
            next[piece] = piece + 1;
            piece = find_free(next, piece);
        }
    }
    for (uint32_t i = 0; i + 1 < n_unique;) {
        uint32_t end = i + 1;

        while (end + 1 < n_unique && owner[end] == owner[i])
            end++;
        if (owner[i] != MFD_ANY)
            emit_interval(build, borders[i], borders[end] - 1, owner[i]);
        i = end;
    }
}

static void put_slot(struct build *build, const struct entry *entry, uint32_t first, uint32_t n)
{
    struct mfd_slot slot = entry->network;
    struct mfd_prefixes *prefixes = &build->prefixes[mfd_protocol_index(slot.protocol)];
    uint32_t at = mfd_routes_mask_hash(&slot);

    slot.first_interval = first;
    slot.n_intervals = n;
    while (build->slots[at & (build->n_slots - 1)].family != 0)
        at++;
    build->slots[at & (build->n_slots - 1)] = slot;
    if (slot.family == AF_INET)
        prefixes->ipv4 |= 1ULL << slot.prefix;
    else
        prefixes->ipv6[slot.prefix / 64] |= 1ULL << (slot.prefix % 64);
}

static int build_networks(struct build *build, uint32_t n_rules)
{
    uint32_t *scratch;

    build->entries = calloc(2 * (size_t)n_rules + 1, sizeof(*build->entries));
    build->intervals = calloc(4 * (size_t)n_rules + 1, sizeof(*build->intervals));
    build->n_slots = 2;
    while (build->n_slots < 4 * (uint64_t)n_rules)
        build->n_slots *= 2;
    build->slots = calloc(build->n_slots, sizeof(*build->slots));
    scratch = calloc(12 * (size_t)n_rules + 3, sizeof(*scratch));
    if (build->entries == NULL || build->intervals == NULL || build->slots == NULL ||
        scratch == NULL) {
        free(scratch);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < n_rules; i++) {
        uint16_t family = build->rules[i].network.family;

        if (family != AF_INET6)
            add_entry(build, i, AF_INET);
        if (family != AF_INET)
            add_entry(build, i, AF_INET6);
    }
    qsort(build->entries, build->n_entries, sizeof(*build->entries), compare_entries);
    for (uint32_t i = 0; i < build->n_entries;) {
        uint32_t first = build->n_intervals;
        uint32_t end = i + 1;

        while (end < build->n_entries &&
               compare_networks(&build->entries[i].network, &build->entries[end].network) == 0)
            end++;
        settle_ports(build, &build->entries[i], end - i, scratch);
        put_slot(build, &build->entries[i], first, build->n_intervals - first);
        i = end;
    }
    free(scratch);
    return 0;
}

static uint32_t gcd(uint32_t a, uint32_t b)
{
    while (b != 0) {
        uint32_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

/* Weights as small as they go; writes one a endpoint and returns their sum. */
static uint32_t reduce_weights(const struct mfd_endpoint *endpoints, uint32_t n,
                               uint32_t *ret_weights)
{
    uint64_t total = 0;
    uint32_t common = 0;
    uint32_t sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        total += endpoints[i].weight;
        common = gcd(common, endpoints[i].weight);
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t weight = endpoints[i].weight;

        if (common != 0 && total / common <= MFD_SCHEDULE_MAX - n)
            weight /= common;
        else if (weight != 0)
            weight = 1 + weight * (MFD_SCHEDULE_MAX - n) / (total + 1);
        ret_weights[i] = (uint32_t)weight;
        sum += (uint32_t)weight;
    }
    return sum;
}

/* Smooth weighted round-robin: each turn all gain their weight, the richest serves and pays. */
static void fill_schedule(uint16_t *schedule, uint32_t sum, const uint32_t *weights,
                          int64_t *credit, uint32_t n)
{
    memset(credit, 0, n * sizeof(*credit));
    for (uint32_t turn = 0; turn < sum; turn++) {
        uint32_t best = 0;

        for (uint32_t i = 0; i < n; i++) {
            credit[i] += weights[i];
            if (credit[i] > credit[best])
                best = i;
        }
        credit[best] -= sum;
        schedule[turn] = (uint16_t)best;
    }
}

static int build_upstream(struct build *build, uint32_t index, const struct mfd_upstream *given,
                          const struct mfd_endpoint *endpoints)
{
    uint32_t n = given->n_endpoints;
    uint32_t *weights = calloc(n, sizeof(*weights));
    int64_t *credit = calloc(n, sizeof(*credit));
    uint32_t sum = weights == NULL ? 0 : reduce_weights(endpoints, n, weights);
    uint16_t *grown = NULL;
    int error = 0;

    if (sum > 0)
        grown = realloc(build->schedule, (build->n_schedule + (size_t)sum) * sizeof(*grown));
    if (grown != NULL)
        build->schedule = grown;
    if (weights == NULL || credit == NULL || (sum > 0 && grown == NULL)) {
        error = -ENOMEM;
    } else if (sum == 0) {
        error = -EINVAL;
    } else {
        fill_schedule(grown + build->n_schedule, sum, weights, credit, n);
        build->upstreams[index] = (struct mfd_table_upstream){
            .balance = given->balance,
            .first_endpoint = given->first_endpoint,
            .n_endpoints = n,
            .first_schedule = build->n_schedule,
            .n_schedule = sum,
        };
        build->n_schedule += sum;
    }
    free(weights);
    free(credit);
    return error;
}

static int build_upstreams(struct build *build, const struct mfd_upstream *upstreams,
                           uint32_t n_upstreams, const struct mfd_endpoint *endpoints,
                           uint32_t n_endpoints)
{
    build->upstreams = calloc((size_t)n_upstreams + 1, sizeof(*build->upstreams));
    if (build->upstreams == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < n_endpoints; i++)
        if (!mfd_endpoint_is_valid(&endpoints[i]))
            return -EINVAL;
    for (uint32_t i = 0; i < n_upstreams; i++) {
        const struct mfd_upstream *given = &upstreams[i];
        int error;

        if ((given->balance != MFD_ROUND_ROBIN && given->balance != MFD_RANDOM) ||
            given->n_endpoints == 0 || given->n_endpoints > MFD_SCHEDULE_MAX / 2 ||
            given->first_endpoint > n_endpoints ||
            given->n_endpoints > n_endpoints - given->first_endpoint)
            return -EINVAL;
        error = build_upstream(build, i, given, endpoints + given->first_endpoint);
        if (error < 0)
            return error;
    }
    return 0;
}

/* Where the next array begins; @at is moved past it. */
static uint32_t place(uint64_t *at, uint32_t n, size_t item)
{
    uint64_t begin = *at;

    *at = (begin + n * (uint64_t)item + 7) & ~7ULL;
    return (uint32_t)begin;
}

static int write_all(int fd, const void *data, size_t size, uint32_t at)
{
    const uint8_t *bytes = data;

    while (size > 0) {
        ssize_t n = pwrite(fd, bytes, size, at);

        if (n < 0)
            return -errno;
        bytes += n;
        size -= (size_t)n;
        at += (uint32_t)n;
    }
    return 0;
}

static int write_table(int fd, const struct mfd_table *table, const struct build *build,
                       const struct mfd_endpoint *endpoints)
{
    int error = write_all(fd, table, sizeof(*table), 0);

    if (error == 0)
        error =
            write_all(fd, build->slots, build->n_slots * sizeof(*build->slots), table->slots_at);
    if (error == 0)
        error = write_all(fd, build->intervals, build->n_intervals * sizeof(*build->intervals),
                          table->intervals_at);
    if (error == 0)
        error = write_all(fd, build->upstreams, table->n_upstreams * sizeof(*build->upstreams),
                          table->upstreams_at);
    if (error == 0)
        error =
            write_all(fd, endpoints, table->n_endpoints * sizeof(*endpoints), table->endpoints_at);
    if (error == 0)
        error = write_all(fd, build->schedule, build->n_schedule * sizeof(*build->schedule),
                          table->schedule_at);
    if (error == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        error = -errno;
    return error;
}

/* mfd_routes_compile - rules to a sealed route table
 * Upstreams point into @endpoints; each needs an endpoint with a weight that is not 0.
 * Return: a memfd, owned by the caller; -EINVAL when the rules are not sound; -E2BIG when the table
 * would be larger than MFD_ROUTES_SIZE_MAX; -ENOMEM; or what memfd_create(2) says. */
int mfd_routes_compile(const struct mfd_rule *rules, uint32_t n_rules,
                       const struct mfd_upstream *upstreams, uint32_t n_upstreams,
                       const struct mfd_endpoint *endpoints, uint32_t n_endpoints)
{
    BUILD_FREE struct build build = {.rules = rules};
    MFD_CLOSE int fd = -1;
    struct mfd_table table = {0};
    uint64_t at = (sizeof(table) + 7) & ~7ULL;
    int error;

    if (n_rules > MFD_ROUTES_SIZE_MAX / sizeof(struct mfd_slot) / 4)
        return -E2BIG;
    for (uint32_t i = 0; i < n_rules; i++)
        if (!rule_is_valid(&rules[i], n_upstreams))
            return -EINVAL;
    error = build_upstreams(&build, upstreams, n_upstreams, endpoints, n_endpoints);
    if (error == 0)
        error = build_networks(&build, n_rules);
    if (error < 0)
        return error;
    table = (struct mfd_table){
        .magic = MFD_ROUTES_MAGIC,
        .version = MFD_ROUTES_VERSION,
        .n_rules = n_rules,
        .n_slots = build.n_slots,
        .n_intervals = build.n_intervals,
        .n_upstreams = n_upstreams,
        .n_endpoints = n_endpoints,
        .n_schedule = build.n_schedule,
    };
    memcpy(table.prefixes, build.prefixes, sizeof(table.prefixes));
    table.slots_at = place(&at, build.n_slots, sizeof(struct mfd_slot));
    table.intervals_at = place(&at, build.n_intervals, sizeof(struct mfd_interval));
    table.upstreams_at = place(&at, n_upstreams, sizeof(struct mfd_table_upstream));
    table.endpoints_at = place(&at, n_endpoints, sizeof(struct mfd_endpoint));
    table.schedule_at = place(&at, build.n_schedule, sizeof(uint16_t));
    if (at > MFD_ROUTES_SIZE_MAX)
        return -E2BIG;
    table.size = (uint32_t)at;
    fd = memfd_create("meshfd-routes", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)at) < 0)
        return -errno;
    error = write_table(fd, &table, &build, endpoints);
    return error < 0 ? error : mfd_take_fd(&fd);
}
