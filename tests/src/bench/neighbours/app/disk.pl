# Writes a MiB and syncs it, until the quota is used up; then begins anew. Notes how many MiB, and how often it was full.
use strict;
use IO::Handle;
my ($written, $full, $block) = (0, 0, "x" x (1 << 20));
while (1) {
    open(my $file, ">", "fill") or die;
    while ((syswrite($file, $block) // 0) == length $block && $file->sync) {
        $written++;
        note();
    }
    $full++;
    note();
    close $file;
    unlink "fill";
}

sub note {
    open(my $count, ">", "/dev/shm/new") or die;
    print $count "$written $full";
    close $count;
    rename "/dev/shm/new", "/dev/shm/count";
}
