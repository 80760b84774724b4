/* routes.c - look a destination up in a route table
 *
 * Theory of operation: a table is one sealed memfd that holds no pointers, so that a supervisor
 * builds it (routes_compile.c) and an agent maps it. What was written as rules has become a hash of
 * networks, keyed by protocol, family, prefix length and masked address; each network's ports are disjoint
 * intervals in ascending order, in which "narrowest port range, then first given" was settled when
 * the table was built. A lookup tries the prefix lengths that occur, longest first: one probe of the
 * hash and one binary search each. So it costs the same with ten routes and with a hundred thousand,
 * and does not allocate.
 *
 * Trust: the agent checks every offset and index once, when it maps the table; the seals
 * (F_SEAL_WRITE, _SHRINK, _GROW) see to it that what was checked cannot change afterwards.
 * Source: memfd_create(2), fcntl(2) "File Sealing". */
#include "routes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "address.h"
#include "util.h"

#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

/* mfd_routes_mask_hash - clear the address's bits past the prefix, and hash what a slot is found by
 * FNV-1a with a final mix; networks come from a configuration, not from an attacker. */
uint32_t mfd_routes_mask_hash(struct mfd_slot *network)
{
    const uint16_t prefix = network->prefix;
    uint64_t hash = 0xcbf29ce484222325ULL ^ network->family ^ ((uint64_t)prefix << 16) ^
                    ((uint64_t)network->protocol << 32);

    for (unsigned i = 0; i < 16; i++) {
        if (i * 8 >= prefix)
            network->bytes[i] = 0;
        else if (prefix - i * 8 < 8)
            network->bytes[i] &= (uint8_t)(0xff00u >> (prefix - i * 8));
        hash = (hash ^ network->bytes[i]) * 0x100000001b3ULL;
    }
    return (uint32_t)(hash ^ (hash >> 29));
}

/* @wanted: protocol, family, prefix, and the address, whose bits past the prefix are cleared */
static const struct mfd_slot *find_slot(const struct mfd_table *table, struct mfd_slot *wanted)
{
    const struct mfd_slot *slots = mfd_table_at(table, table->slots_at);
    uint32_t at = mfd_routes_mask_hash(wanted);

    /* Ends: a valid table has a free slot. */
    for (;; at++) {
        const struct mfd_slot *slot = &slots[at & (table->n_slots - 1)];

        if (slot->family == 0)
            return NULL;
        if (slot->family == wanted->family && slot->prefix == wanted->prefix &&
            slot->protocol == wanted->protocol &&
            memcmp(slot->bytes, wanted->bytes, sizeof(slot->bytes)) == 0)
            return slot;
    }
}

static const struct mfd_interval *find_interval(const struct mfd_table *table,
                                                const struct mfd_slot *slot, uint16_t port)
{
    const struct mfd_interval *intervals = mfd_table_at(table, table->intervals_at);
    uint32_t low = slot->first_interval;
    uint32_t high = low + slot->n_intervals;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (port < intervals[middle].first_port)
            high = middle;
        else if (port > intervals[middle].last_port)
            low = middle + 1;
        else
            return &intervals[middle];
    }
    return NULL;
}

/* mfd_routes_find - the rule that decides connections to this address
 * @table: may be NULL: nothing matches
 * @protocol: IPPROTO_TCP or IPPROTO_UDP */
void mfd_routes_find(const struct mfd_table *table, uint32_t protocol,
                     const struct mfd_address *address, struct mfd_match *ret_match)
{
    struct mfd_slot wanted = {.protocol = protocol, .family = address->family};
    const struct mfd_prefixes *of_protocol;
    const uint64_t *prefixes;
    int words;

    *ret_match = (struct mfd_match){.verdict = MFD_PASS, .rule = MFD_ANY};
    if (table == NULL)
        return;
    of_protocol = &table->prefixes[mfd_protocol_index(protocol)];
    prefixes = address->family == AF_INET ? &of_protocol->ipv4 : of_protocol->ipv6;
    words = address->family == AF_INET ? 1 : MFD_PREFIX_WORDS;
    /* once: each shorter prefix leaves fewer of its bits */
    memcpy(wanted.bytes, address->bytes, address->family == AF_INET6 ? 16 : 4);
    for (int word = words - 1; word >= 0; word--) {
        for (uint64_t left = prefixes[word]; left != 0;) {
            int bit = 63 - __builtin_clzll(left);
            const struct mfd_interval *interval;
            const struct mfd_slot *slot;

            wanted.prefix = (uint16_t)(word * 64 + bit);
            slot = find_slot(table, &wanted);
            interval = slot == NULL ? NULL : find_interval(table, slot, address->port);
            if (interval != NULL) {
                ret_match->verdict = interval->verdict;
                ret_match->rule = interval->rule;
                ret_match->argument = interval->argument;
                return;
            }
            left &= ~(1ULL << bit);
        }
    }
}

static bool array_fits(const struct mfd_table *table, uint32_t at, uint32_t n, size_t item)
{
    return at % 8 == 0 && at >= sizeof(*table) && at <= table->size &&
           (uint64_t)n * item <= table->size - at;
}

static bool slots_are_valid(const struct mfd_table *table)
{
    const struct mfd_slot *slots = mfd_table_at(table, table->slots_at);
    uint32_t n_free = 0;

    for (uint32_t i = 0; i < table->n_slots; i++) {
        const struct mfd_slot *slot = &slots[i];

        if (slot->family == 0) {
            n_free++;
            continue;
        }
        if (slot->family != AF_INET && slot->family != AF_INET6)
            return false;
        if (slot->protocol != IPPROTO_TCP && slot->protocol != IPPROTO_UDP)
            return false;
        if (slot->prefix > (slot->family == AF_INET ? 32 : 128))
            return false;
        if (slot->first_interval > table->n_intervals ||
            slot->n_intervals > table->n_intervals - slot->first_interval)
            return false;
    }
    return n_free > 0;
}

static bool intervals_are_valid(const struct mfd_table *table)
{
    const struct mfd_interval *intervals = mfd_table_at(table, table->intervals_at);

    for (uint32_t i = 0; i < table->n_intervals; i++) {
        const struct mfd_interval *interval = &intervals[i];

        if (interval->first_port > interval->last_port || interval->rule >= table->n_rules)
            return false;
        switch (interval->verdict) {
        case MFD_PASS:
        case MFD_ASK:
            break;
        case MFD_DENY:
            if (interval->argument == 0 || interval->argument > 4095) /* MAX_ERRNO, linux/err.h */
                return false;
            break;
        case MFD_REDIRECT:
            if (interval->argument >= table->n_upstreams)
                return false;
            break;
        default:
            return false;
        }
    }
    return true;
}

static bool upstreams_are_valid(const struct mfd_table *table)
{
    for (uint32_t i = 0; i < table->n_upstreams; i++) {
        const struct mfd_table_upstream *upstream = mfd_table_upstream(table, i);

        if (upstream->first_endpoint > table->n_endpoints ||
            upstream->n_endpoints > table->n_endpoints - upstream->first_endpoint)
            return false;
        if (upstream->first_schedule > table->n_schedule || upstream->n_schedule == 0 ||
            upstream->n_schedule > table->n_schedule - upstream->first_schedule)
            return false;
        for (uint32_t j = 0; j < upstream->n_schedule; j++)
            if (mfd_table_schedule(table, upstream)[j] >= upstream->n_endpoints)
                return false;
    }
    for (uint32_t i = 0; i < table->n_endpoints; i++)
        if (!mfd_endpoint_is_valid(mfd_table_endpoint(table, i)))
            return false;
    return true;
}

static bool prefixes_are_valid(const struct mfd_table *table)
{
    for (unsigned i = 0; i < MFD_PROTOCOLS; i++)
        if ((table->prefixes[i].ipv4 >> 33) != 0 || (table->prefixes[i].ipv6[2] >> 1) != 0)
            return false;
    return true;
}

static bool table_is_valid(const struct mfd_table *table, uint32_t size)
{
    return table->magic == MFD_ROUTES_MAGIC && table->version == MFD_ROUTES_VERSION &&
           table->size == size && table->n_slots > 0 &&
           (table->n_slots & (table->n_slots - 1)) == 0 && prefixes_are_valid(table) &&
           array_fits(table, table->slots_at, table->n_slots, sizeof(struct mfd_slot)) &&
           array_fits(table, table->intervals_at, table->n_intervals,
                      sizeof(struct mfd_interval)) &&
           array_fits(table, table->upstreams_at, table->n_upstreams,
                      sizeof(struct mfd_table_upstream)) &&
           array_fits(table, table->endpoints_at, table->n_endpoints,
                      sizeof(struct mfd_endpoint)) &&
           array_fits(table, table->schedule_at, table->n_schedule, sizeof(uint16_t)) &&
           slots_are_valid(table) && intervals_are_valid(table) && upstreams_are_valid(table);
}

/* mfd_routes_map - check a table and map it
 * @ret_table: given back to mfd_routes_unmap()
 * Return: 0; -EPERM when the memfd is not sealed; -EBADMSG when its content is not a valid table;
 * or what mmap(2) says. */
int mfd_routes_map(int table_fd, const struct mfd_table **ret_table)
{
    struct stat status;
    void *mapped;
    int seals = fcntl(table_fd, F_GET_SEALS);

    if (seals < 0 || (seals & SEALS) != SEALS)
        return -EPERM;
    if (fstat(table_fd, &status) < 0)
        return -errno;
    if (status.st_size < (off_t)sizeof(struct mfd_table) || status.st_size > MFD_ROUTES_SIZE_MAX)
        return -EBADMSG;
    mapped = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, table_fd, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    if (!table_is_valid(mapped, (uint32_t)status.st_size)) {
        (void)munmap(mapped, (size_t)status.st_size);
        return -EBADMSG;
    }
    *ret_table = mapped;
    return 0;
}

void mfd_routes_unmap(const struct mfd_table *table)
{
    if (table != NULL)
        (void)munmap((void *)(uintptr_t)table, table->size);
}
