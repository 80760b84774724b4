/* routes.h - the route table (routes.c looks up, routes_compile.c builds) */
#ifndef MESHFD_ROUTES_H
#define MESHFD_ROUTES_H

#include <netinet/in.h>
#include <stdint.h>

#include "wire.h"

#define MFD_ROUTES_MAGIC 0x6d666472u
#define MFD_ROUTES_VERSION 3
#define MFD_ROUTES_SIZE_MAX (256u << 20) /* bytes; 100,000 routes take 8 MiB, endpoints 140 bytes */
#define MFD_SCHEDULE_MAX 65536           /* slots of one upstream's schedule */

#define MFD_PREFIX_WORDS 3 /* 129 possible lengths of an IPv6 prefix, a bit each */
#define MFD_PROTOCOLS 2    /* TCP, UDP */

/* The lengths of one protocol's networks: bit n: some network of n bits is in the hash. */
struct mfd_prefixes {
    uint64_t ipv4;
    uint64_t ipv6[MFD_PREFIX_WORDS];
};

/* The file: this record, then five arrays at the offsets that it gives. */
struct mfd_table {
    uint32_t magic;
    uint32_t version;
    uint32_t size;
    uint32_t n_rules; /* as they were given; only their numbers appear in the table */
    uint32_t n_slots; /* of the hash; a power of two, at least one slot is free */
    uint32_t n_intervals;
    uint32_t n_upstreams;
    uint32_t n_endpoints;
    uint32_t n_schedule;
    uint32_t slots_at;
    uint32_t intervals_at;
    uint32_t upstreams_at;
    uint32_t endpoints_at;
    uint32_t schedule_at;
    struct mfd_prefixes prefixes[MFD_PROTOCOLS];
};

/* One network: its ports are a run of disjoint, ascending intervals. */
struct mfd_slot {
    uint8_t bytes[16]; /* masked to the prefix */
    uint16_t family;   /* 0: a free slot */
    uint16_t prefix;
    uint32_t protocol; /* IPPROTO_* */
    uint32_t first_interval;
    uint32_t n_intervals;
};

struct mfd_interval {
    uint16_t first_port;
    uint16_t last_port;
    uint32_t verdict;
    uint32_t rule;
    uint32_t argument; /* REDIRECT: upstream; DENY: errno */
};

/* Endpoints in the order in which connections go to them: an endpoint stands in the schedule as
 * often as its weight says, spread evenly. Entries are indices within the upstream. */
struct mfd_table_upstream {
    uint32_t balance;
    uint32_t first_endpoint;
    uint32_t n_endpoints;
    uint32_t first_schedule;
    uint32_t n_schedule;
    uint32_t pad_;
};

struct mfd_match {
    uint32_t verdict; /* MFD_PASS when nothing matches */
    uint32_t rule;    /* MFD_ANY when nothing matches */
    uint32_t argument;
};

int mfd_routes_compile(const struct mfd_rule *rules, uint32_t n_rules,
                       const struct mfd_upstream *upstreams, uint32_t n_upstreams,
                       const struct mfd_endpoint *endpoints, uint32_t n_endpoints);
int mfd_routes_map(int table_fd, const struct mfd_table **ret_table);
void mfd_routes_unmap(const struct mfd_table *table);
void mfd_routes_find(const struct mfd_table *table, uint32_t protocol,
                     const struct mfd_address *address, struct mfd_match *ret_match);
uint32_t mfd_routes_mask_hash(struct mfd_slot *network);

/* Which of mfd_table.prefixes is this protocol's. */
static inline unsigned mfd_protocol_index(uint32_t protocol)
{
    return protocol == IPPROTO_UDP;
}

static inline const void *mfd_table_at(const struct mfd_table *table, uint32_t offset)
{
    return (const uint8_t *)table + offset;
}

static inline const struct mfd_table_upstream *mfd_table_upstream(const struct mfd_table *table,
                                                                  uint32_t index)
{
    return (const struct mfd_table_upstream *)mfd_table_at(table, table->upstreams_at) + index;
}

static inline const struct mfd_endpoint *mfd_table_endpoint(const struct mfd_table *table,
                                                            uint32_t index)
{
    return (const struct mfd_endpoint *)mfd_table_at(table, table->endpoints_at) + index;
}

static inline const uint16_t *mfd_table_schedule(const struct mfd_table *table,
                                                 const struct mfd_table_upstream *upstream)
{
    return (const uint16_t *)mfd_table_at(table, table->schedule_at) + upstream->first_schedule;
}

#endif
