/* Addresses: every spelling has one meaning, and going back gives the spelling of the family. */
#include "check.h"

static void parse_and_format_are_inverse(void)
{
    static const struct {
        const char *ip;
        int domain;
    } rows[] = {
        {"127.0.0.1", AF_INET},    {"255.255.255.255", AF_INET},
        {"0.0.0.0", AF_INET},      {"127.0.0.1", AF_INET6},
        {"0.0.0.0", AF_INET6},     {"::1", AF_INET6},
        {"::", AF_INET6},          {"2001:db8::ff", AF_INET6},
        {"fe80::1", AF_INET6},     {"::fffe:127.0.0.1", AF_INET6},
        {"::127.0.0.1", AF_INET6},
    };
    static const uint16_t ports[] = {0, 1, 80, 256, 65535};

    for (size_t i = 0; i < MFD_COUNT(rows); i++) {
        for (size_t j = 0; j < MFD_COUNT(ports); j++) {
            struct mfd_address address = address_of(rows[i].ip, ports[j]);
            struct mfd_address again;
            union mfd_sockaddr sockaddr;
            socklen_t length = 0;

            check_about = rows[i].ip;
            if (strcmp(rows[i].ip, "fe80::1") == 0)
                address.scope_id = (uint32_t)j;
            CHECK_EQ(mfd_address_format(&address, rows[i].domain, &sockaddr, &length), 0);
            CHECK_EQ(sockaddr.any.sa_family, rows[i].domain);
            CHECK_EQ(length, rows[i].domain == AF_INET ? sizeof(struct sockaddr_in)
                                                       : sizeof(struct sockaddr_in6));
            CHECK_EQ(mfd_address_parse(&sockaddr, length, &again), 0);
            CHECK(memcmp(&address, &again, sizeof(address)) == 0);
        }
    }
    check_about = "";
}

static void mapped_addresses_are_ipv4(void)
{
    const struct mfd_address plain = address_of("127.66.0.1", 80);
    struct mfd_address mapped = address_of("::ffff:127.66.0.1", 80);
    struct mfd_address meaning;
    union mfd_sockaddr sockaddr;
    socklen_t length;

    mapped.scope_id = 7; /* an IPv4 address has none */
    CHECK_EQ(mfd_address_format(&mapped, AF_INET6, &sockaddr, &length), 0);
    CHECK_EQ(mfd_address_parse(&sockaddr, length, &meaning), 0);
    CHECK(memcmp(&meaning, &plain, sizeof(plain)) == 0);
    CHECK(mfd_address_same_ip(&meaning, &plain));
}

static void lengths_decide_as_in_the_kernel(void)
{
    static const struct {
        const char *ip;
        socklen_t length;
        int expected;
    } rows[] = {
        {"127.0.0.1", 0, -EINVAL},
        {"127.0.0.1", 1, -EINVAL},
        {"127.0.0.1", 2, -EINVAL},
        {"127.0.0.1", 15, -EINVAL},
        {"127.0.0.1", 16, 0},
        {"127.0.0.1", 128, 0},
        {"::1", 16, -EINVAL},
        {"::1", 23, -EINVAL},
        {"::1", 24, 0},
        {"::1", 27, 0},
        {"::1", 28, 0},
        {"::1", 128, 0},
    };

    for (size_t i = 0; i < MFD_COUNT(rows); i++) {
        struct mfd_address address = address_of(rows[i].ip, 80);
        struct mfd_address parsed = {.family = 77};
        union mfd_sockaddr sockaddr = {0};
        socklen_t length;

        check_about = rows[i].ip;
        CHECK_EQ(mfd_address_format(&address, address.family, &sockaddr, &length), 0);
        CHECK_EQ(mfd_address_parse(&sockaddr, rows[i].length, &parsed), rows[i].expected);
        if (rows[i].expected != 0)
            CHECK_EQ(parsed.family, 77); /* written only on success */
    }
    check_about = "";
}

static void the_scope_counts_only_where_it_was_given(void)
{
    struct mfd_address address = address_of("fe80::1", 80);
    struct mfd_address parsed;
    union mfd_sockaddr sockaddr;
    socklen_t length;

    address.scope_id = 3;
    CHECK_EQ(mfd_address_format(&address, AF_INET6, &sockaddr, &length), 0);
    CHECK_EQ(mfd_address_parse(&sockaddr, 27, &parsed), 0);
    CHECK_EQ(parsed.scope_id, 0);
    CHECK_EQ(mfd_address_parse(&sockaddr, 28, &parsed), 0);
    CHECK_EQ(parsed.scope_id, 3);
    CHECK(mfd_address_same_ip(&address, &parsed));
    parsed.scope_id = 4;
    CHECK(!mfd_address_same_ip(&address, &parsed));
}

static void the_scope_counts_only_where_one_is_needed(void)
{
    static const struct {
        const char *ip;
        uint32_t scope_id;
    } rows[] = {
        {"fe80::1", 3}, {"febf::1", 3}, {"ff01::1", 3}, {"ff02::1", 3}, {"::1", 0},
        {"::", 0},      {"fec0::1", 0}, {"fd00::1", 0}, {"ff05::1", 0}, {"2001:db8::1", 0},
    };

    for (size_t i = 0; i < MFD_COUNT(rows); i++) {
        struct mfd_address address = address_of(rows[i].ip, 80);
        struct mfd_address parsed;
        union mfd_sockaddr sockaddr;
        socklen_t length;

        check_about = rows[i].ip;
        address.scope_id = 3;
        CHECK_EQ(mfd_address_format(&address, AF_INET6, &sockaddr, &length), 0);
        CHECK_EQ(mfd_address_parse(&sockaddr, length, &parsed), 0);
        CHECK_EQ(parsed.scope_id, rows[i].scope_id);
    }
    check_about = "";
}

static void what_a_family_cannot_express_is_refused(void)
{
    const struct mfd_address v4 = address_of("127.0.0.1", 80);
    const struct mfd_address v6 = address_of("::1", 80);
    const struct mfd_address none = {0};
    struct mfd_address parsed;
    union mfd_sockaddr sockaddr = {.any.sa_family = AF_UNIX};
    socklen_t length = 77;

    CHECK_EQ(mfd_address_parse(&sockaddr, 110, &parsed), -EAFNOSUPPORT);
    sockaddr.any.sa_family = AF_UNSPEC;
    CHECK_EQ(mfd_address_parse(&sockaddr, 16, &parsed), -EAFNOSUPPORT);
    CHECK_EQ(mfd_address_format(&v6, AF_INET, &sockaddr, &length), -EAFNOSUPPORT);
    CHECK_EQ(mfd_address_format(&v4, AF_UNIX, &sockaddr, &length), -EAFNOSUPPORT);
    CHECK_EQ(mfd_address_format(&none, AF_INET, &sockaddr, &length), -EAFNOSUPPORT);
    CHECK_EQ(mfd_address_format(&none, AF_INET6, &sockaddr, &length), -EAFNOSUPPORT);
    CHECK_EQ(length, 77);
}

static void wildcards_and_equality_go_by_the_family(void)
{
    static const struct {
        const char *ip;
        bool wildcard;
    } rows[] = {
        {"0.0.0.0", true}, {"127.0.0.1", false}, {"::", true}, {"::1", false}, {"1::", false},
    };
    struct mfd_address v4 = address_of("127.0.0.1", 80);
    struct mfd_address other = address_of("127.0.0.1", 81);

    for (size_t i = 0; i < MFD_COUNT(rows); i++) {
        struct mfd_address address = address_of(rows[i].ip, 80);

        check_about = rows[i].ip;
        CHECK_EQ(mfd_address_is_wildcard(&address), rows[i].wildcard);
    }
    check_about = "";
    CHECK(mfd_address_same_ip(&v4, &other));
    other.bytes[9] = 1; /* past an IPv4 address */
    CHECK(mfd_address_same_ip(&v4, &other));
    other.bytes[3] = 9;
    CHECK(!mfd_address_same_ip(&v4, &other));
    other = v4;
    other.family = AF_INET6;
    CHECK(!mfd_address_same_ip(&v4, &other));
}

int main(void)
{
    parse_and_format_are_inverse();
    mapped_addresses_are_ipv4();
    lengths_decide_as_in_the_kernel();
    the_scope_counts_only_where_it_was_given();
    the_scope_counts_only_where_one_is_needed();
    what_a_family_cannot_express_is_refused();
    wildcards_and_equality_go_by_the_family();
    return check_result();
}
