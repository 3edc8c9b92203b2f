/* SPDX-License-Identifier: MIT */
/*
 * basic: map a file into memory and edit it there, without write().
 *
 *     this process                  the page cache, in the kernel
 *     +--------------------+        +--------------------+
 *     | I just love.sharin | <----> | I just love.sharin | <----> disk
 *     +--------------------+        +--------------------+
 *     MAP_SHARED: the same page, seen by every process that maps the file
 *     MAP_PRIVATE: the first write to a page gives the process its own copy
 *
 *     ./basic /tmp/poem.txt
 *     ./basic --length=8192 --read=4096 /tmp/poem.txt
 *
 * mmap(2); proc_pid_maps(5) explains the lines that say what lies where.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <ctype.h>
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* To experiment, change these lines, or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
static long long offset = 0;  /* the byte of the file to begin at */
static long long length = -1; /* how many bytes to map, -1: up to its end */

static enum { EDIT, TOUCH, CAT } task;
static const char *path, *old = "memories", *new = "MEMORIES";
static int as_string, pausing, syncing, writing;
static unsigned long byte; /* the one to touch */

static int fd;
static unsigned long byte_0;  /* the address at which byte 0 would be */
static unsigned long located; /* the address that locate() has printed */
static const long largest = LONG_MAX / 2; /* bytes; a sum of two fits */

static long long choose_length(void);
static void edit(char *text, size_t in_file);
static void touch(volatile unsigned char *address);
static void cat(const char *text, long long in_file);
static void bring_to_disk(char *page, size_t size);
static void compare(const char *place, size_t size);
static char *printable(char *word, size_t size);
static void dump(const char *text, long long in_file);
static int locate(FILE *stream, unsigned long address);
static long dirty(unsigned long address);
static void explain_faults(void);
static long long file_size(void);
static void flush_after_store(void);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void wait_for_enter(const char *what);
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();

    /* A private mapping may be written to though the file may not. */
    int access = O_RDONLY;
    if (flags == MAP_SHARED && (prot & PROT_WRITE)) access = O_RDWR;
    fd = open(path, access | O_NONBLOCK); /* and do not wait at a FIFO */
    if (fd == -1) err(1, "%s", path);
    const long long in_file = choose_length();

    /* A mapping begins at a page of the file: round down, and add the rest. */
    long long extra = offset % sysconf(_SC_PAGESIZE);
    char *page = mmap(NULL, extra + length, prot, flags, fd, offset - extra);
    if (page == MAP_FAILED) err(1, "%s: mmap of %lld bytes", path, length);
    char *text = page + extra;

    byte_0 = (unsigned long)text - offset;
    explain_faults();
    if (task != CAT)
        printf("byte %lld is at %p + %lld\n", offset, (void *)page, extra);
    flush_stdout();
    if (pausing) wait_for_enter("goes on");

    switch (task) {
    case EDIT: edit(text, in_file); break;
    case TOUCH: touch((unsigned char *)(byte_0 + byte)); break;
    case CAT: cat(text, in_file); break;
    }
    if (syncing) bring_to_disk(page, extra + length);
    flush_stdout();
}

/* Returns how many bytes of the file the mapping will hold. That is its length,
   too, if the user has given none. */
static long long choose_length(void)
{
    long long in_file = file_size() - offset;
    if (in_file < 0) in_file = 0;
    if (length == -1) length = in_file;
    if (in_file > length) in_file = length;
    if (task == CAT) length = in_file;
    if (task == CAT && length == 0) length = 1; /* mmap() refuses 0 */
    if (length > largest) errx(1, "%s: %lld bytes are too many", path, length);
    return in_file;
}

/* A plain store, and nothing else, puts the new word into the file. */
static void edit(char *text, size_t in_file)
{
    if (as_string)
        printf("%s\n", text);
    else
        dump(text, in_file);

    const size_t size = strlen(old);
    if (pausing) wait_for_enter("edits");
    char *place = memmem(text, in_file, old, size);
    if (place == NULL) errx(1, "%s: '%s' not found", path, old);

    flush_stdout(); /* nothing is changed if nobody can be told */
    memcpy(place, new, size);

    compare(place, size);
    if (!pausing) return;
    wait_for_enter("looks again");
    compare(place, size);
}

/* A byte that may be behind the end of the file, or outside of the mapping. */
static void touch(volatile unsigned char *address)
{
    if (locate(stdout, (unsigned long)address) == -1) err(1, "/proc/self/maps");
    flush_stdout();
    if (writing) *address = 'X';
    printf("it is %d; the file has %lld bytes\n", *address, file_size());
    if (writing) flush_after_store();
}

/* The bytes are copied first. If a page is gone meanwhile, this process gets
   the signal, while write(2) would only return EFAULT. */
static void cat(const char *text, long long in_file)
{
    char bytes[65536];
    for (long long at = 0; at < in_file; at += sizeof bytes) {
        size_t size = sizeof bytes;
        if (in_file - at < (long long)size) size = in_file - at;
        memcpy(bytes, text + at, size);
        fwrite(bytes, 1, size, stdout);
        flush_stdout();
    }
}

/* Every process sees a store at once, but the disk has it only after this, or
   whenever the kernel finds the time. */
static void bring_to_disk(char *page, size_t size)
{
    const long before = dirty((unsigned long)page);
    if (msync(page, size, MS_SYNC) == -1) err(1, "%s: msync", path);
    const long after = dirty((unsigned long)page);
    printf("not on the disk: %ld kB of the mapping; after msync() %ld kB\n",
           before, after);
}

/* The memory at that place, and what pread(2) says that the file holds. */
static void compare(const char *place, size_t size)
{
    char *memory = calloc(size + 1, 1);
    if (memory == NULL) err(1, "memory, after the store");
    char *file = calloc(size + 1, 1);
    if (file == NULL) err(1, "memory, after the store");

    memcpy(memory, place, size);
    const ssize_t got = pread(fd, file, size, (unsigned long)place - byte_0);
    if (got == -1) err(1, "%s: pread after the store", path);
    if ((size_t)got < size) errx(1, "%s: truncated while mapped", path);
    printf("'%s' is now '%s' in memory, '%s' in the file\n", old,
           printable(memory, size), printable(file, size));
    flush_after_store();
    free(memory);
    free(file);
}

/* What others have put there may not command the terminal. The two words of the
   user are shown as they are. */
static char *printable(char *word, size_t size)
{
    if (memcmp(word, old, size) == 0 || memcmp(word, new, size) == 0)
        return word;
    for (size_t i = 0; i < size; i++)
        if (!isprint((unsigned char)word[i])) word[i] = '.';
    return word;
}

/* The bytes in hex beside the text, 16 a line; of a long text, 16 lines. */
static void dump(const char *text, long long in_file)
{
    for (long long row = 0; row < in_file && row < 256; row += 16) {
        char hex[16 * 3 + 1] = "", chars[16 + 1] = "";
        for (int i = 0; i < 16 && row + i < in_file; i++) {
            unsigned char c = text[row + i];
            sprintf(hex + 3 * i, "%02x ", c);
            chars[i] = isprint(c) ? c : '.';
        }
        printf("%8lld  %-48s |%s|\n", offset + row, hex, chars);
    }
}

/* Which byte of the file belongs there, and what mapping is there. */
static int locate(FILE *stream, unsigned long address)
{
    fprintf(stream, "byte %ld of %lld, at %#lx\n", (long)(address - byte_0),
            file_size(), address);
    FILE *maps = fopen("/proc/self/maps", "r");
    if (maps == NULL) return -1;
    char *line = NULL, rights[5];
    size_t room = 0;
    unsigned long from, to;
    int name = 0;
    while (getline(&line, &room, maps) != -1) {
        sscanf(line, "%lx-%lx %4s %*s %*s %*s %n", &from, &to, rights, &name);
        if (address < from || address >= to) continue;
        fprintf(stream, "  in %lx-%lx %s %s", from, to, rights,
                line[name] ? line + name : "no file\n");
    }
    const int failed = ferror(maps);
    free(line);
    fclose(maps);
    located = address;
    return failed ? -1 : 0;
}

/* How many kB of the mapping at that address the disk does not have. */
static long dirty(unsigned long address)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    if (maps == NULL) err(1, "/proc/self/smaps");
    char *line = NULL;
    size_t room = 0;
    unsigned long from, to;
    int here = 0;
    long size, sum = 0;
    while (getline(&line, &room, maps) != -1) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            here = from <= address && address < to;
        if (!here) continue;
        if (sscanf(line, "Shared_Dirty: %ld", &size) == 1) sum += size;
        if (sscanf(line, "Private_Dirty: %ld", &size) == 1) sum += size;
    }
    if (ferror(maps)) err(1, "/proc/self/smaps");
    free(line);
    fclose(maps);
    return sum;
}

/* The fault is never inside malloc(), so stdio works here. Returning runs the
   instruction again; because of SA_RESETHAND it then kills. */
static void explain_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    unsigned long address = (unsigned long)info->si_addr;
    /* x86 does not tell an address that cannot exist: it is what was tried. */
    if (info->si_code == SI_KERNEL) address = located;

    /* The file's last page is mapped whole: only the next one is beyond. */
    const long at = address - byte_0;
    const long in_page = at % sysconf(_SC_PAGESIZE);
    const char *rule;
    if (number == SIGBUS && at - in_page >= file_size())
        rule = "SIGBUS, beyond the end of the file";
    else if (number == SIGBUS)
        rule = "SIGBUS, the disk is full, or fails";
    else if (info->si_code == SEGV_ACCERR)
        rule = "SIGSEGV, protection forbids it";
    else
        rule = "SIGSEGV, nothing is mapped there";
    fprintf(stderr, "basic: %s: ", rule);
    if (address == located)
        fprintf(stderr, "byte %ld of %lld\n", at, file_size());
    else if (locate(stderr, address) == -1)
        warn("/proc/self/maps");
}

static void explain_faults(void)
{
    const struct sigaction action = {.sa_sigaction = explain_fault,
                                     .sa_flags = SA_SIGINFO | SA_RESETHAND};
    sigset_t faults; /* whoever started this may have blocked them */
    sigemptyset(&faults);
    sigaddset(&faults, SIGSEGV);
    sigaddset(&faults, SIGBUS);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigprocmask(SIG_UNBLOCK, &faults, NULL);
}

static long long file_size(void)
{
    struct stat status;
    if (fstat(fd, &status) == -1) err(1, "%s", path);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a regular file", path);
    return status.st_size;
}

/* A store cannot be taken back: what fails after it says so. */
static void flush_after_store(void)
{
    if (fflush(stdout) == EOF || ferror(stdout))
        err(1, "stdout, after the store");
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: basic [OPTION]... FILE [OLD NEW]\n"
         "Map FILE, show it, replace OLD (memories) by NEW (MEMORIES).\n"
         "  --private            use MAP_PRIVATE: the file keeps its text\n"
         "  --prot=rwx|none      allow only these accesses\n"
         "  --offset=N           begin at byte N of the file, any byte\n"
         "  --length=N           map N bytes, even beyond the end\n"
         "  --string             show the text with printf(\"%s\")\n"
         "  --read=N, --write=N  only touch byte N of the file, there or not\n"
         "  --sync               write to the disk what is not there yet\n"
         "  --pause              wait for Enter before each step\n"
         "  --cat                write the bytes to stdout, nothing else\n"
         "example: basic --length=8192 --read=4096 /tmp/poem.txt");
    flush_stdout();
    exit(0);
}

static int parse_prot(const char *letters)
{
    int allowed = PROT_NONE;
    if (strcmp(letters, "none") == 0) return PROT_NONE;
    if (letters[strspn(letters, "rwx")] != '\0')
        errx(2, "%s: not letters of rwx, nor none", letters);
    if (strchr(letters, 'r')) allowed |= PROT_READ;
    if (strchr(letters, 'w')) allowed |= PROT_WRITE;
    if (strchr(letters, 'x')) allowed |= PROT_EXEC;
    return allowed;
}

static long long parse_number(const char *text, long long least, long long most)
{
    const long long number = strtoll(text, NULL, 10);
    if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
        errx(2, "%s: not a number", text);
    if (number < least || number > most)
        errx(2, "%s: not from %lld to %lld", text, least, most);
    return number;
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {
        {"cat", 0, NULL, 'c'},    {"help", 0, NULL, 'h'},
        {"length", 1, NULL, 'l'}, {"offset", 1, NULL, 'o'},
        {"pause", 0, NULL, 'P'},  {"private", 0, &flags, MAP_PRIVATE},
        {"prot", 1, NULL, 'p'},   {"read", 1, NULL, 'r'},
        {"string", 0, NULL, 's'}, {"sync", 0, &syncing, 1},
        {"write", 1, NULL, 'w'},  {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'c': task = CAT; break;
        case 'h': usage(); break;
        case 'l': length = parse_number(optarg, 0, largest); break;
        case 'o': offset = parse_number(optarg, 0, largest); break;
        case 'P': pausing = 1; break;
        case 'p': prot = parse_prot(optarg); break;
        case 's': as_string = 1; break;
        case 'r':
        case 'w':
            task = TOUCH;
            writing = (option == 'w');
            byte = parse_number(optarg, 0, largest);
            break;
        case '?': exit(2);
        }
    if (task == CAT) {
        prot = PROT_READ;
        pausing = 0;
        syncing = 0;
    }

    argc -= optind;
    argv += optind;
    if (argc != 1 && argc != 3) errx(2, "want FILE [OLD NEW]; try --help");
    path = argv[0];
    if (argc == 3) {
        old = argv[1];
        new = argv[2];
    }
    if (*old == '\0' || strlen(old) != strlen(new))
        errx(2, "want OLD and NEW of one length; try --help");
}

/* With stdout closed, open() would return 1, and printf() fill the file.
   A closed stdin is an empty one. */
static void check_streams(void)
{
    if (fcntl(STDOUT_FILENO, F_GETFD) == -1) err(1, "stdout");
    if (fcntl(STDERR_FILENO, F_GETFD) == -1) err(1, "stderr");
    if (fcntl(STDIN_FILENO, F_GETFD) != -1) return;
    if (open("/dev/null", O_RDONLY) == -1) err(1, "/dev/null");
}

/* The end of the input is Enter, too. */
static void wait_for_enter(const char *what)
{
    printf("[%d] Enter %s\n", getpid(), what);
    flush_stdout();
    int key = getchar();
    while (key != '\n' && key != EOF) key = getchar();
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
