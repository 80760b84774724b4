/* Any bytes as a route table: refused, or searched without a step outside.
 *
 * The input is the file, sealed as a supervisor would. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "../address.h"
#include "../routes.h"
#include "../util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void search(const struct mfd_table *table, uint32_t protocol,
                   const struct mfd_address *address)
{
    struct mfd_match match;

    mfd_routes_find(table, protocol, address, &match);
    if (match.rule == MFD_ANY ? match.verdict != MFD_PASS : match.rule >= table->n_rules)
        abort();
    if (match.verdict == MFD_DENY && (match.argument == 0 || match.argument > 4095))
        abort();
    /* what an agent reads next (connect.c) */
    if (match.verdict == MFD_REDIRECT) {
        const struct mfd_table_upstream *upstream = mfd_table_upstream(table, match.argument);

        for (uint32_t turn = 0; turn < upstream->n_schedule; turn++) {
            uint32_t index = upstream->first_endpoint + mfd_table_schedule(table, upstream)[turn];

            if (index >= table->n_endpoints ||
                !mfd_endpoint_is_valid(mfd_table_endpoint(table, index)))
                abort();
        }
    }
}

/* Addresses that the table itself names, so that lookups get far. */
static void search_for_its_own(const struct mfd_table *table)
{
    static const uint16_t ports[] = {0, 80, 443, 65535};
    const struct mfd_slot *slots = mfd_table_at(table, table->slots_at);

    for (uint32_t i = 0; i < table->n_slots && i < 64; i++) {
        struct mfd_address address = {.family = slots[i].family == AF_INET ? AF_INET : AF_INET6};

        for (unsigned j = 0; j < sizeof(address.bytes); j++)
            address.bytes[j] = slots[i].bytes[j];
        for (size_t j = 0; j < MFD_COUNT(ports); j++) {
            address.port = ports[j];
            search(table, IPPROTO_TCP, &address);
            search(table, IPPROTO_UDP, &address);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    MFD_CLOSE int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const struct mfd_table *table;

    if (fd < 0 || write(fd, data, size) != (ssize_t)size ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        abort();
    if (mfd_routes_map(fd, &table) < 0)
        return 0;
    search_for_its_own(table);
    mfd_routes_unmap(table);
    return 0;
}
