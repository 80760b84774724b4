/* trim.c - give back the memory of code that has done its work
 *
 * Theory of operation: most of what an agent has in memory is code and constants of the C library, mapped in pieces of
 * 64 KiB around what was used (mm/filemap.c, filemap_map_pages). A good part is for starting up and for spawning.
 * When a program has been spawned all of it is unmapped: what is used again comes back at once from the page cache.
 * What can be written to stays.
 * Source: madvise(2) MADV_DONTNEED, dl_iterate_phdr(3), elf(5). */
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include "meshfd.h"

static int trim_one(struct dl_phdr_info *info, size_t size, void *unused)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

    (void)size;
    (void)unused;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t begin = (info->dlpi_addr + segment->p_vaddr) & ~(page - 1);
        uintptr_t end = (info->dlpi_addr + segment->p_vaddr + segment->p_memsz) & ~(page - 1);

        if (segment->p_type == PT_LOAD && (segment->p_flags & PF_W) == 0 && begin < end)
            (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
    return 0;
}

/* mfd_trim - a program was spawned; the next may take a while */
void mfd_trim(void)
{
    (void)dl_iterate_phdr(trim_one, NULL);
}
