/* Any bytes as a sockaddr: what is understood can be written again, and means the same. */
#include "../address.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_and_read(const struct mfd_address *address, int domain)
{
    union mfd_sockaddr sockaddr;
    struct mfd_address again;
    socklen_t length;

    if (mfd_address_format(address, domain, &sockaddr, &length) < 0) {
        if (domain == AF_INET6 || domain == address->family)
            abort();
        return;
    }
    if (length > sizeof(sockaddr) || mfd_address_parse(&sockaddr, length, &again) < 0 ||
        memcmp(address, &again, sizeof(again)) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    union mfd_sockaddr *sockaddr = malloc(sizeof(*sockaddr)); /* where ASan sees past its end */
    struct mfd_address address;

    if (sockaddr == NULL)
        abort();
    if (size > sizeof(*sockaddr))
        size = sizeof(*sockaddr);
    memset(sockaddr, 0xa5, sizeof(*sockaddr));
    if (size > 0)
        memcpy(sockaddr, data, size);
    if (mfd_address_parse(sockaddr, (socklen_t)size, &address) == 0) {
        write_and_read(&address, AF_INET);
        write_and_read(&address, AF_INET6);
        (void)mfd_address_is_wildcard(&address);
        if (!mfd_address_same_ip(&address, &address))
            abort();
    }
    free(sockaddr);
    return 0;
}
