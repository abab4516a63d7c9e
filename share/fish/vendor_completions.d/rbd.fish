# Completion of rbd for fish: commands, options, and the names of pools, images
# and snapshots. The command itself knows what may come next.
function __opt_rbd_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    $words[1] __complete $words[2..-1] $word 2>/dev/null
    if test $status -eq 3
        # --NAME= stands before the file as it does before other values.
        set -l option (string match -r -- '^--[^=]*=' $word; or echo '')
        for path in (__fish_complete_path (string replace -- $option '' $word))
            echo $option$path
        end
    end
end
complete -c rbd -f -a '(__opt_rbd_complete)'
