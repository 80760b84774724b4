/* rules.h - short ways to write the rules of a route table */
#ifndef MESHFD_RULES_H
#define MESHFD_RULES_H

#include "check.h"

static inline struct mfd_rule rule_of(const char *network, uint16_t prefix, uint16_t first_port,
                                      uint16_t last_port, uint16_t verdict, uint32_t argument)
{
    return (struct mfd_rule){
        .network = address_of(network, 0),
        .prefix = prefix,
        .first_port = first_port,
        .last_port = last_port,
        .verdict = verdict,
        .upstream = verdict == MFD_REDIRECT ? argument : 0,
        .error = verdict == MFD_DENY ? argument : 0,
        .protocol = IPPROTO_TCP,
    };
}

static inline struct mfd_rule for_udp(struct mfd_rule rule)
{
    rule.protocol = IPPROTO_UDP;
    return rule;
}

static inline struct mfd_endpoint unix_endpoint_of(const char *path)
{
    struct mfd_endpoint endpoint = {
        .address = {.family = AF_UNIX}, .weight = 1, .path_size = (uint16_t)strlen(path)};

    NEED(endpoint.path_size < sizeof(endpoint.path));
    memcpy(endpoint.path, path, endpoint.path_size);
    return endpoint;
}

static inline const struct mfd_table *map_of(int table_fd)
{
    const struct mfd_table *table = NULL;

    NEED(table_fd >= 0);
    NEED(mfd_routes_map(table_fd, &table) == 0);
    return table;
}

static inline struct mfd_match found(const struct mfd_table *table, const char *ip, uint16_t port)
{
    struct mfd_address address = address_of(ip, port);
    struct mfd_match match;

    mfd_routes_find(table, IPPROTO_TCP, &address, &match);
    return match;
}

static inline struct mfd_match found_udp(const struct mfd_table *table, const char *ip,
                                         uint16_t port)
{
    struct mfd_address address = address_of(ip, port);
    struct mfd_match match;

    mfd_routes_find(table, IPPROTO_UDP, &address, &match);
    return match;
}

#endif
